"""What each account may do here, at what price, and the money to pay for it.

The first request of an account waits for its terms, and a prepaid one's for its first slice; later
ones find both in memory, and they are asked for again in the background while the account is in
use. A refusal is remembered for a moment only, so that a new plan or a top-up is felt at once.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

import structlog

from services.common.contracts import format_amount, parse_amount
from services.common.errors import Unavailable
from services.inference.metering.accounts import Account, PaymentRequired, Waiter
from services.inference.metering.asker import Asker
from services.inference.metering.billing import BillingClient, BillingError
from services.inference.metering.rates import Pace
from services.inference.metering.slices import Slice

RENEW_AFTER_S = 20.0
FRESH_S = 30.0
"""Terms of an account in use are never older; older ones are asked for before they are used…"""
REFRESH_S = 1.0
"""…but for no longer than this, since they still hold if billing is away."""
IDLE_AFTER_S = 60.0
"""What an unused account holds is then given back to the others."""
FORGET_AFTER_S = 600.0
TICK_S = 0.5
MAX_REMEMBERED = 10_000
"""Keyed requests journalled here that a repeat may ask for before billing has heard of them."""
MAX_WAIT_S = 5.0
"""How long a request waits for terms or money."""
RELEASE_S = 5.0
"""How long a stopping process tries to give back what it holds."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Spending:
    """What one request costs, in 10⁻⁹ of the unit, and that it may be spent."""

    amount: int
    currency: str
    price_id: str
    slice: Slice | None = None
    """The slice it was reserved from; None if it is paid later, or has been paid."""
    owed: bool = True
    """False for a repeat of what was paid: it must not be billed, not even as a repeat."""

    def free(self) -> None:
        """Give the reservation back: the request failed and will not be billed."""
        if self.slice is not None:
            self.slice.free(self.amount)

    def receipt(self) -> bytes:
        """The `X-Usage-Amount`, such as `0.0005 USD`."""
        return _receipt(self.amount, self.currency)


@lru_cache(maxsize=1024)
def _receipt(amount: int, currency: str) -> bytes:
    return f"{format_amount(amount)} {currency}".encode()


class Terms:
    """Owns the accounts this process serves.

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
        self._asker = Asker(billing, journal=journal, clock=clock)
        self._max_age_s = max_age_s
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._journalled: dict[str, Spending] = {}
        """Keyed requests of late, by event id: owed already, whether billing knows or not."""
        self._rested: dict[str, Slice] = {}
        """Slices of forgotten accounts: amounts are cumulative to the end of the process."""

    async def admit(self, account_id: str) -> None:
        """Count a request against the account's rate limit, even if it is refused later.

        Raises:
            RateLimited: too many requests.
            Unavailable: the account's terms are not known, and billing does not answer.
        """
        account = await self._with_terms(account_id)
        account.admit(self._clock())

    async def spend(
        self, account_id: str, model: str, rows: int, *, event_id: str | None = None
    ) -> Spending:
        """Reserve what an admitted request costs; without waiting as long as terms and slice last.

        The reservation stays spent unless it is freed.

        Args:
            event_id: under which a repeat of this request would have been billed, if it can tell.

        Raises:
            PaymentRequired: no plan, no price, no credit.
            HeldElsewhere: other processes hold the credit.
            Unavailable: no terms are to be had.
        """
        try:
            return await self._reserve(account_id, model, rows)
        except PaymentRequired:
            paid = await self._find_paid(event_id) if event_id is not None else None
            if paid is None:
                raise
            return paid

    def remember(self, event_id: str, spending: Spending) -> None:
        """Note that a keyed request has been journalled: a repeat is served even at balance 0.

        Billing may hear of it only later. This is for repeats to this process; elsewhere they are
        served once billing has heard.
        """
        self._journalled[event_id] = replace(spending, slice=None, owed=False)
        if len(self._journalled) > MAX_REMEMBERED:
            del self._journalled[next(iter(self._journalled))]

    async def run(self) -> None:
        """Renew the terms in use and give back what is not, for ever; cancel to stop."""
        while True:
            await asyncio.sleep(TICK_S)
            if not self._asker.rests:
                await self.tick()

    async def tick(self) -> None:
        """Ask in the background for every account that has reason to; forget the unused."""
        for number, account in enumerate(list(self._accounts.values())):
            now = self._clock()
            unused_s = now - account.used_at
            unneeded = unused_s >= IDLE_AFTER_S or not account.prepaid
            if unneeded and account.holds_money:
                self._asker.want(account, idle=True)
            elif self._wants_renewal(account, now):
                self._asker.want(account)
            elif unused_s >= FORGET_AFTER_S and not account.waiting:
                del self._accounts[account.id]
                if account.slice.granted or account.slice.spent:
                    self._rested[account.id] = account.slice
            if number % 1_000 == 999:
                await asyncio.sleep(0)

    async def release(self) -> None:
        """Give back what prepaid accounts hold; once no request is running any more.

        What billing does not hear it finds out when the journal is closed.
        """
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._asker.finish()  # its answers may still bring money
                for account in self._accounts.values():
                    if account.holds_money:
                        self._asker.want(account, idle=True)
                await self._asker.finish()
        except TimeoutError:
            log.warning("slices_not_released")

    def _wants_renewal(self, account: Account, now: float) -> bool:
        if account.rate_limited:
            return True
        if account.used_at <= account.sent_at:
            return False
        return now - account.sent_at >= RENEW_AFTER_S or (
            account.prepaid and account.wants_more(now)
        )

    async def _reserve(self, account_id: str, model: str, rows: int) -> Spending:
        account = await self._with_terms(account_id)
        now = self._clock()
        price = account.price(model)
        amount = price.per_request + rows * price.per_row
        if not account.prepaid:
            return Spending(amount, price.currency, price.price_id)
        if account.reserve(amount, now):
            if account.wants_more(now) and not self._asker.rests:
                self._asker.want(account)
            return Spending(amount, price.currency, price.price_id, account.slice)
        account.check_refusal(amount, now)
        held = await self._wait(account, amount)
        if held is None:  # its plan turned postpaid while it waited
            price = account.price(model)
            amount = price.per_request + rows * price.per_row
        return Spending(amount, price.currency, price.price_id, held)

    async def _with_terms(self, account_id: str) -> Account:
        """Return an account whose terms may be used, after waiting for them if need be."""
        now = self._clock()
        account = self._accounts.get(account_id) or self._add(account_id, now)
        account.used_at = now  # not forgotten while this request waits
        if account.needs_terms(now, max_age_s=self._max_age_s):
            await self._wait(account, 0)
        elif (
            now - account.sent_at > FRESH_S
            and now - account.refreshed_at > REFRESH_S
            and not self._asker.rests
        ):
            # It comes back after a pause, in which its plan may have changed.
            with suppress(Unavailable):
                await self._wait(account, 0, at_most_s=REFRESH_S)
            account.refreshed_at = self._clock()
        return account

    def _add(self, account_id: str, now: float) -> Account:
        account = Account(
            account_id,
            used_at=now,
            requests=Pace(now),
            money=Pace(now),
            slice=self._rested.pop(account_id, Slice()),
        )
        self._accounts[account_id] = account
        return account

    async def _wait(
        self, account: Account, amount: int, *, at_most_s: float = MAX_WAIT_S
    ) -> Slice | None:
        """Wait for the next answered ask and, of a prepaid account, for the amount.

        Raises:
            PaymentRequired, HeldElsewhere: as billing answered.
            Unavailable: it did not answer.
        """
        paid = asyncio.get_running_loop().create_future()
        account.waiting.append(Waiter(amount, paid))
        self._asker.want(account)
        try:
            async with asyncio.timeout(at_most_s):
                held: Slice | None = await paid
                return held
        except TimeoutError as error:
            _give_back(paid, amount)
            raise Unavailable("This account's terms cannot be had right now.") from error
        except asyncio.CancelledError:
            _give_back(paid, amount)
            raise

    async def _find_paid(self, event_id: str) -> Spending | None:
        """What a request cost when it was first answered, if billing has charged it.

        Its repeat is served without a reservation, and so without an event: an event settles
        against the slice (`settled += amount`) and, being a repeat, is given back to the account
        (`available += amount`). That adds up when the amount was reserved, as any other repeat's
        is: the slice holds that much more unsettled until then. With nothing reserved, and nothing
        granted that could be, the same event would take `settled` beyond `granted` and leave in
        `available` money that is not there for any process to be granted. Nothing is owed, so
        there is nothing to journal.

        Raises:
            Unavailable: billing does not tell.
        """
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                charged = await self._billing.find_charge(event_id)
        except (BillingError, TimeoutError) as error:
            raise Unavailable("Whether this was paid cannot be told right now.") from error
        if charged is None:
            return self._journalled.get(event_id)
        return Spending(
            parse_amount(charged.amount), charged.currency, charged.price_id, owed=False
        )


def _give_back(paid: "asyncio.Future[Slice | None]", amount: int) -> None:
    """What was reserved for a request in the very moment that it gave up waiting."""
    if paid.done() and not paid.cancelled() and paid.exception() is None:
        held = paid.result()
        if held is not None:
            held.free(amount)
