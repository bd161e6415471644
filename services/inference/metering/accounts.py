"""What this process knows of one account: its terms, its slice, and who waits for an answer."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from services.common.contracts import (
    MAX_SUM,
    LeaseAsk,
    LeaseTerms,
    format_amount,
    parse_amount,
)
from services.common.errors import ServiceError, Unavailable
from services.inference.metering.rates import Bucket, Pace, RateLimited
from services.inference.metering.slices import HOLDS_S, Slice

REFUSAL_HOLDS_S = 0.5
"""How long a refusal stands before billing is asked anew, so that a top-up is felt at once."""
SLICE_S = 30.0
"""A slice is to last this long at the pace of late…"""
SLICE_REQUESTS = 10
"""…and for at least so many requests."""
ASK_AGAIN_S = 0.2
"""The least time between two background asks for more money."""


class PaymentRequired(ServiceError):
    """The account has no plan, no price for this model, or no credit."""

    status = 402
    code = "payment_required"

    def __init__(self, reason: str) -> None:
        super().__init__(_REFUSALS.get(reason, "This account cannot pay for this request."))


class HeldElsewhere(Unavailable):
    """Other processes have reserved the account's credit.

    It returns when they pause, or, from one that has died, once billing gives it up.
    """

    code = "credit_held_elsewhere"

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
    """What one model costs an account; amounts in 10⁻⁹ of the currency unit."""

    price_id: str
    per_request: int
    per_row: int
    currency: str


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits: for terms (amount 0), or for its amount to be reserved."""

    amount: int
    paid: asyncio.Future[Slice | None]
    """The slice it was reserved from, None if nothing had to be."""


@dataclass(slots=True, eq=False)
class Account:
    """One account as this process serves it; all times are of the process's clock."""

    id: str
    used_at: float
    requests: Pace
    money: Pace
    terms: LeaseTerms | None = None
    prices: dict[str | None, Price] = field(default_factory=dict)
    slice: Slice = field(default_factory=Slice)
    bucket: Bucket | None = None
    waiting: deque[Waiter] = field(default_factory=deque)
    sent_at: float = 0.0
    """When the last answered ask was sent."""
    refreshed_at: float = float("-inf")
    """When a request last waited for fresher terms, which may not have come."""
    low: int = 0
    """More money is asked for in the background when less than this is unspent."""
    typical: int = 0
    """The amount of the last request."""
    rate_limited: bool = False
    """A request was refused for its rate since the last ask."""
    reported: int = 0
    """What the latest ask said was spent."""
    needed: int = 0
    """What the latest ask needed at least; 0 for a background ask."""
    releasing: bool = False
    """Whether the latest ask gave everything back."""
    refused: int | None = None
    """The least amount that the last answer refused; None if it refused none."""

    @property
    def prepaid(self) -> bool:
        return self.terms is not None and self.terms.billing == "prepaid"

    @property
    def holds_money(self) -> bool:
        """Whether there is something to give back, or may be."""
        return self.slice.unspent > 0 or not self.slice.sure

    def needs_terms(self, now: float, *, max_age_s: float) -> bool:
        """Whether billing must be asked before this account may do anything."""
        if self.terms is None:
            return True
        if self.prepaid:
            holds_s = HOLDS_S
        else:
            holds_s = max_age_s if self.terms.status == "ok" else REFUSAL_HOLDS_S
        return now - self.sent_at >= holds_s

    def admit(self, now: float) -> None:
        """Count a request, and let it pass the rate limit.

        Raises:
            RateLimited: it may not pass now.
        """
        self.used_at = now
        self.requests.count += 1
        if self.bucket is not None:
            try:
                self.bucket.take(now)
            except RateLimited:
                self.rate_limited = True
                raise

    def price(self, model: str) -> Price:
        """What a model costs.

        Raises:
            PaymentRequired: no plan, no price, or no credit and so no price.
        """
        price = self.prices.get(model) or self.prices.get(None)
        status = self.terms.status if self.terms else "no_plan"
        if price is None or (status != "ok" and not self.prepaid):
            raise PaymentRequired(status if status != "ok" else "no_price")
        return price

    def reserve(self, amount: int, now: float) -> bool:
        """Reserve an amount without asking; False if that takes an ask."""
        if not self.slice.reserve(amount, now=now):
            return False
        self.money.count += amount
        self.typical = amount
        return True

    def check_refusal(self, amount: int, now: float) -> None:
        """Refuse what was refused a moment ago, without asking again.

        Raises:
            PaymentRequired, HeldElsewhere: as billing answered then.
        """
        if amount > MAX_SUM:
            raise PaymentRequired("no_credit")  # more than any balance can be
        fresh = now - self.sent_at < REFUSAL_HOLDS_S
        if fresh and self.refused is not None and amount >= self.refused:
            raise self._refusal()

    def wants_more(self, now: float) -> bool:
        """Whether the slice has run low and was not asked for a moment ago."""
        return self.slice.unspent < self.low and now - self.sent_at >= ASK_AGAIN_S

    def ask(self, *, journal: str, ask_no: int, now: float, idle: bool) -> LeaseAsk:
        """The ask that is being sent now.

        Waiting requests are asked for together: what the least of them needs decides, so that as
        many as the credit bears are served and the last 10⁻⁹ is spendable.

        Args:
            idle: give all back, unless somebody waits.

        Raises:
            ValueError: the account's id is none that billing knows.
        """
        amounts = [waiter.amount for waiter in self.waiting if waiter.amount]
        self.releasing = release = idle and not self.waiting
        self.needed = min(amounts, default=0)
        self.reported = self.slice.report(may_lower=bool(amounts) or release)
        lately = int(self.money.measure(now) * SLICE_S)
        want = max(lately, SLICE_REQUESTS * max([self.typical, *amounts]), sum(amounts))
        self.low = 0 if release else min(want, MAX_SUM) // 2
        return LeaseAsk.model_validate(
            {
                "account": self.id,
                "journal": journal,
                "ask_no": ask_no,
                "spent": format_amount(self.reported),
                "at_least": format_amount(self.needed),
                "want": format_amount(0 if release else min(want, MAX_SUM)),
                "release": release,
                "demand": self.requests.measure(now),
            }
        )

    def answer(self, terms: LeaseTerms, *, sent_at: float, now: float) -> None:
        """Take the answer to the ask under way, and serve who waits, first come first.

        Raises:
            ValueError: the answer cannot be read; nothing has changed.
        """
        prices = {
            price.model: Price(
                price_id=price.price_id,
                per_request=parse_amount(price.per_request),
                per_row=parse_amount(price.per_row),
                currency=terms.currency or "",
            )
            for price in terms.prices
        }
        granted = parse_amount(terms.granted)
        self.terms, self.prices, self.sent_at, self.rate_limited = terms, prices, sent_at, False
        self._limit(terms, now)
        self.refused = (self.needed or None) if terms.status != "ok" else None
        if self.prepaid:
            self.slice.answer(granted, sent_at=sent_at)
        elif self.releasing:  # prepaid no more: what was left is given back all the same
            self.slice.answer(self.reported, sent_at=sent_at)
        self._serve(now)

    def fail(self) -> None:
        """The ask under way has no answer: nobody waits any longer."""
        while self.waiting:
            paid = self.waiting.popleft().paid
            if not paid.done():
                paid.set_exception(Unavailable("This account's terms cannot be had right now."))

    def _limit(self, terms: LeaseTerms, now: float) -> None:
        """Follow the share of the rate limit; tokens already there are kept."""
        if terms.rate_limit is None:
            self.bucket = None
        elif self.bucket is None:
            self.bucket = Bucket(terms.rate_limit, tokens=terms.rate_limit.burst, at=now)
        else:
            self.bucket.limit = terms.rate_limit

    def _serve(self, now: float) -> None:
        waiting, self.waiting = self.waiting, deque()
        for waiter in waiting:
            if waiter.paid.done():
                continue  # it gave up
            if not waiter.amount or self._is_postpaid():
                waiter.paid.set_result(None)
            elif self.prepaid and self.reserve(waiter.amount, now):
                waiter.paid.set_result(self.slice)
            elif not self.prepaid or (self.refused is not None and waiter.amount >= self.refused):
                waiter.paid.set_exception(self._refusal())
            else:
                self.waiting.append(waiter)

    def _is_postpaid(self) -> bool:
        return self.terms is not None and self.terms.status == "ok" and not self.prepaid

    def _refusal(self) -> ServiceError:
        if self.terms is not None and self.terms.status == "held_elsewhere":
            return HeldElsewhere(self.terms.retry_after or 1)
        return PaymentRequired(self.terms.status if self.terms else "no_plan")
