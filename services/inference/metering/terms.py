"""What each account may spend here, and at what price: asked of billing, remembered, renewed.

The first request of an account waits for its terms; later ones find them in memory, and they are
asked again in the background while the account is in use. A refusal is remembered for a second
only, so that a new plan is felt at once.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from services.common.contracts import (
    MAX_ASKS_PER_CALL,
    LeaseAsk,
    LeaseTerms,
    format_amount,
    parse_amount,
)
from services.common.errors import ServiceError, Unavailable
from services.inference.metering.billing import BillingClient, BillingError

RENEW_AFTER_S = 20.0
REFUSAL_HOLDS_S = 1.0
FORGET_AFTER_S = 600.0
TICK_S = 1.0

log = structlog.get_logger()


class PaymentRequired(ServiceError):
    """The account has no plan, no price for this model, or no credit."""

    status = 402
    code = "payment_required"

    def __init__(self, reason: str) -> None:
        super().__init__(_REFUSALS.get(reason, "This account cannot pay for this request."))


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

    def receipt(self, rows: int) -> bytes:
        """The `X-Usage-Amount` of a request, such as `0.0005 USD`."""
        amount = format_amount(self.per_request + rows * self.per_row)
        return f"{amount} {self.currency}".encode()


@dataclass(slots=True)
class _Account:
    terms: LeaseTerms
    prices: dict[str | None, Price]
    asked_at: float
    used_at: float
    uses: int = 0


class Terms:
    """Owns the terms of the accounts this process serves.

    Args:
        journal: id of this process run, under which billing keeps what it granted.
        max_age_s: how long postpaid terms hold while billing is away.
    """

    def __init__(
        self,
        billing: BillingClient,
        *,
        journal: str,
        max_age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._billing = billing
        self._journal = journal
        self._max_age_s = max_age_s
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._ask_no = 0

    async def price(self, account: str, model: str) -> Price:
        """The price of a request; from memory but for an account's first request.

        Raises:
            PaymentRequired: no plan, no price, no credit.
            Unavailable: no terms are to be had.
        """
        known = self._accounts.get(account)
        now = self._clock()
        if known is None or self._is_stale(known, now):
            await self._ask_now(account)
            known = self._accounts[account]
        known.used_at = now
        known.uses += 1
        if known.terms.status != "ok":
            raise PaymentRequired(known.terms.status)
        price = known.prices.get(model) or known.prices.get(None)
        if price is None:
            raise PaymentRequired("no_price")
        return price

    async def run(self) -> None:
        """Renew the terms in use, for ever; cancel to stop."""
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock()
            for account, known in list(self._accounts.items()):
                if now - known.used_at > FORGET_AFTER_S:
                    del self._accounts[account]
                elif now - known.asked_at > RENEW_AFTER_S and known.used_at > known.asked_at:
                    self._want(account)

    def _is_stale(self, known: _Account, now: float) -> bool:
        holds_s = self._max_age_s if known.terms.status == "ok" else REFUSAL_HOLDS_S
        return now - known.asked_at > holds_s

    def _want(self, account: str) -> asyncio.Future[None]:
        """Have an account in the next call; all that is wanted in one turn goes together."""
        arrival = self._wanted.setdefault(account, asyncio.get_running_loop().create_future())
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask_all())
        return arrival

    async def _ask_now(self, account: str) -> None:
        try:
            await asyncio.shield(self._want(account))
        except BillingError as error:
            raise Unavailable("This account's terms cannot be had right now.") from error

    async def _ask_all(self) -> None:
        while self._wanted:
            batch = dict(list(self._wanted.items())[:MAX_ASKS_PER_CALL])
            for account in batch:
                del self._wanted[account]
            try:
                answers = await self._billing.ask([self._ask(account) for account in batch])
            except BillingError as error:
                log.warning("terms_not_to_be_had", error=str(error), accounts=len(batch))
                for arrival in batch.values():
                    arrival.set_exception(error)
                    arrival.exception()  # a background ask has nobody waiting
            else:
                for terms in answers:
                    self._remember(terms)
                    batch[terms.account].set_result(None)
        self._asking = None

    def _ask(self, account: str) -> LeaseAsk:
        known = self._accounts.get(account)
        demand = 0.0
        if known is not None:
            demand = known.uses / max(self._clock() - known.asked_at, 1.0)
        self._ask_no += 1
        return LeaseAsk(account=account, journal=self._journal, ask_no=self._ask_no, demand=demand)

    def _remember(self, terms: LeaseTerms) -> None:
        now = self._clock()
        known = self._accounts.get(terms.account)
        self._accounts[terms.account] = _Account(
            terms=terms,
            prices={
                price.model: Price(
                    price_id=price.price_id,
                    per_request=parse_amount(price.per_request),
                    per_row=parse_amount(price.per_row),
                    currency=terms.currency or "",
                )
                for price in terms.prices
            },
            asked_at=now,
            used_at=known.used_at if known else now,
        )
