"""One account in this process: its lease terms, credit reservation and waiting requests."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from services.common.contracts import (
    MAX_SUM,
    LeaseRequest,
    LeaseTerms,
    format_amount,
    parse_amount,
)
from services.common.errors import ServiceError, Unavailable
from services.inference.metering.leases.rates import RateLimited, RateMeter, TokenBucket
from services.inference.metering.leases.reservations import SPENDABLE_S, CreditReservation

REFUSAL_VALID_S = 0.5
"""How long a refusal is repeated before billing is called again, so that a top-up takes effect."""
RESERVATION_S = 30.0
"""A credit reservation should last this long at the account's recent rate of spending…"""
RESERVATION_REQUESTS = 10
"""…and cover at least this many requests."""
REQUEST_AGAIN_S = 0.2
"""The minimum time between two background requests for more credit."""
TERMS_UNAVAILABLE = "Pricing for this account is temporarily unavailable."


class PaymentRequired(ServiceError):
    """The account has no plan, no price for this model, or no credit."""

    status = 402
    code = "payment_required"

    def __init__(self, reason: str) -> None:
        super().__init__(_REFUSALS.get(reason, "This account cannot pay for this request."))


class CreditReservedElsewhere(Unavailable):
    """Other processes have reserved the account's credit.

    They give it back when they pause. The credit of a process that died comes back once billing
    declares the process lost.
    """

    code = "credit_reserved_elsewhere"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"This account's credit is reserved by other processes; retry in {retry_after_s} s.",
            retry_after_s=retry_after_s,
        )


_REFUSALS = {
    "no_plan": "This account has no plan.",
    "no_price": "This account's plan has no price for this model.",
    "no_credit": "This account has no credit left.",
}


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs an account; amounts in 10⁻⁹ of the currency unit.

    `model` is what the price is for, such as `wine` or `wine:explain`; None for all others.
    """

    price_id: str
    per_request: int
    per_row: int
    currency: str
    model: str | None

    def of(self, rows: int) -> int:
        """Return the amount of a request with this many rows."""
        return self.per_request + rows * self.per_row


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits for terms (amount 0) or for its amount to be reserved."""

    amount: int
    paid: asyncio.Future[CreditReservation | None]
    """Where the amount was reserved; None if no reservation was needed."""


@dataclass(slots=True, eq=False)
class Account:
    """One account as this process serves it; all times are on the process's clock."""

    id: str
    used_at: float
    requests: RateMeter
    money: RateMeter
    terms: LeaseTerms | None = None
    prepaid: bool = False
    is_ok: bool = False
    """Whether billing refused nothing in its latest terms."""
    prices: dict[str | None, Price] = field(default_factory=dict)
    reservation: CreditReservation = field(default_factory=CreditReservation)
    bucket: TokenBucket | None = None
    waiting: deque[Waiter] = field(default_factory=deque)
    sent_at: float = 0.0
    """When the last answered lease request was sent."""
    refreshed_at: float = float("-inf")
    """When a request last waited for fresher terms, whether or not they came."""
    refill_below: int = 0
    """More credit is requested in the background when less than this is unspent."""
    typical_amount: int = 0
    """The amount of the last request."""
    rate_limited: bool = False
    """Whether a request was refused for its rate since the last lease request."""
    reported: int = 0
    """The `spent` of the latest lease request."""
    minimum: int = 0
    """The `minimum` of the latest lease request; 0 in the background."""
    releasing: bool = False
    """Whether the latest lease request released the reservation."""
    refused: int | None = None
    """The smallest amount that the last response refused; None if it refused nothing."""

    @property
    def has_unspent_credit(self) -> bool:
        """Whether there is, or may be, credit to give back."""
        return self.reservation.unspent > 0 or not self.reservation.confirmed

    def needs_terms(self, now: float, *, max_age_s: float) -> bool:
        """Return whether this account cannot be served before billing answers."""
        if self.terms is None:
            return True
        postpaid_s = max_age_s if self.is_ok else REFUSAL_VALID_S
        return now - self.sent_at >= (SPENDABLE_S if self.prepaid else postpaid_s)

    def is_within_rate(self, now: float) -> bool:
        """Return whether `admit` would succeed."""
        return self.bucket is None or self.bucket.filled(now) >= 1

    def admit(self, now: float) -> None:
        """Count a request and apply the rate limit.

        Raises:
            RateLimited: the request is over the limit.
        """
        self.used_at = now
        self.requests.count += 1
        if self.bucket is not None:
            try:
                self.bucket.take(now)
            except RateLimited:
                self.rate_limited = True
                raise

    def readmit(self) -> None:
        """Undo `admit` for a request that is about to be admitted again."""
        self.requests.count = max(self.requests.count - 1, 0)
        if self.bucket is not None:
            self.bucket.tokens += 1

    def price(self, model: str) -> Price:
        """Return what a model costs.

        Args:
            model: its name, or `<name>:explain`; without such a price, the model's own applies.

        Raises:
            PaymentRequired: the account has no plan, no price for the model, or no credit.
        """
        price = (
            self.prices.get(model)
            or self.prices.get(model.partition(":")[0])
            or self.prices.get(None)
        )
        if price is not None and (self.is_ok or self.prepaid):
            return price
        status = self.terms.status if self.terms else "no_plan"
        raise PaymentRequired(status if status != "ok" else "no_price")

    def reserve(self, amount: int, now: float) -> bool:
        """Reserve an amount from the credit at hand; return False if that is not enough."""
        if not self.reservation.reserve(amount, now=now):
            return False
        self.money.count += amount
        self.typical_amount = amount
        return True

    def check_refusal(self, amount: int, now: float) -> None:
        """Refuse at once what billing refused a moment ago.

        Raises:
            PaymentRequired, CreditReservedElsewhere: as billing answered then.
        """
        if amount > MAX_SUM:
            raise PaymentRequired("no_credit")  # more than any balance can be
        fresh = now - self.sent_at < REFUSAL_VALID_S
        if fresh and self.refused is not None and amount >= self.refused:
            raise self._refusal()

    def needs_credit(self, now: float) -> bool:
        """Return whether the reservation is low and no lease was requested a moment ago."""
        low = self.reservation.unspent < self.refill_below
        return low and now - self.sent_at >= REQUEST_AGAIN_S

    def lease_request(self, *, journal: str, sequence: int, now: float, idle: bool) -> LeaseRequest:
        """Return the lease request to send now.

        Waiting requests share one lease request. Its minimum is the smallest amount among them, so
        that as many as possible are served and the last 10⁻⁹ can be spent.

        Args:
            idle: give all unspent credit back, unless a request is waiting.

        Raises:
            ValueError: the account's id is not one that billing accepts.
        """
        amounts = [waiter.amount for waiter in self.waiting if waiter.amount]
        self.releasing = release = idle and not self.waiting
        self.minimum = min(amounts, default=0)
        self.reported = self.reservation.report(may_lower=bool(amounts) or release)
        recent = int(self.money.measure(now) * RESERVATION_S)
        typical = RESERVATION_REQUESTS * max([self.typical_amount, *amounts])
        desired = 0 if release else min(max(recent, typical, sum(amounts)), MAX_SUM)
        self.refill_below = desired // 2
        return LeaseRequest.model_validate(
            {
                "account": self.id,
                "journal": journal,
                "sequence": sequence,
                "spent": format_amount(self.reported),
                "minimum": format_amount(self.minimum),
                "desired": format_amount(desired),
                "release": release,
                "demand": self.requests.measure(now),
            }
        )

    def apply_terms(self, terms: LeaseTerms, *, sent_at: float, now: float) -> None:
        """Apply the response to the latest lease request; serve waiting requests in order.

        Raises:
            ValueError: the response is invalid; nothing has changed.
        """
        prices = {
            price.model: Price(
                price_id=price.price_id,
                per_request=parse_amount(price.per_request),
                per_row=parse_amount(price.per_row),
                currency=terms.currency or "",
                model=price.model,
            )
            for price in terms.prices
        }
        granted = parse_amount(terms.granted)
        self.terms, self.prices, self.sent_at, self.rate_limited = terms, prices, sent_at, False
        self.prepaid, self.is_ok = terms.billing == "prepaid", terms.status == "ok"
        self._apply_rate_limit(terms, now)
        self.refused = (self.minimum or None) if terms.status != "ok" else None
        if self.prepaid:
            self.reservation.apply_grant(granted, sent_at=sent_at)
        elif self.releasing:  # the plan turned postpaid; the rest was released all the same
            self.reservation.apply_grant(self.reported, sent_at=sent_at)
        self._serve_waiting(now)

    def fail(self) -> None:
        """Fail every waiting request: the latest lease request got no usable response."""
        while self.waiting:
            paid = self.waiting.popleft().paid
            if not paid.done():
                paid.set_exception(Unavailable(TERMS_UNAVAILABLE))

    def _apply_rate_limit(self, terms: LeaseTerms, now: float) -> None:
        """Follow a change of the account's rate limit or of this process's share of it.

        Tokens already in the bucket are kept.
        """
        if terms.rate_limit is None:
            self.bucket = None
        elif self.bucket is None:
            self.bucket = TokenBucket(terms.rate_limit, tokens=terms.rate_limit.burst, at=now)
        else:
            self.bucket.limit = terms.rate_limit

    def _serve_waiting(self, now: float) -> None:
        waiting, self.waiting = self.waiting, deque()
        for waiter in waiting:
            if waiter.paid.done():
                continue  # it gave up
            if not waiter.amount or self._is_postpaid():
                waiter.paid.set_result(None)
            elif self.prepaid and self.reserve(waiter.amount, now):
                waiter.paid.set_result(self.reservation)
            elif not self.prepaid or (self.refused is not None and waiter.amount >= self.refused):
                waiter.paid.set_exception(self._refusal())
            else:
                self.waiting.append(waiter)

    def _is_postpaid(self) -> bool:
        return self.is_ok and not self.prepaid

    def _refusal(self) -> ServiceError:
        if self.terms is not None and self.terms.status == "reserved_elsewhere":
            return CreditReservedElsewhere(self.terms.retry_after or 1)
        return PaymentRequired(self.terms.status if self.terms else "no_plan")
