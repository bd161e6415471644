"""What each account may do in this process, at what price, and with which credit.

An account's first request waits for its lease terms and, if the account is prepaid, for its first
credit reservation. Later requests find both in memory, and a background task renews them while the
account is in use. A refusal is remembered only for a moment, so that a new plan or a top-up takes
effect at once.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

import structlog

from services.common.contracts import parse_amount
from services.common.errors import Unavailable
from services.inference.metering.billing_client import BillingClient, BillingError
from services.inference.metering.leases.accounts import (
    TERMS_UNAVAILABLE,
    Account,
    PaymentRequired,
    Waiter,
)
from services.inference.metering.leases.client import LeaseClient
from services.inference.metering.leases.rates import RateMeter
from services.inference.metering.leases.reservations import CreditReservation
from services.inference.metering.leases.spending import Spending

RENEW_AFTER_S = 20.0
FRESH_S = 30.0
"""A request waits for new terms if the account's terms are older than this…"""
REFRESH_S = 1.0
"""…but no longer than this, since the old terms are still valid if billing is unavailable."""
IDLE_AFTER_S = 60.0
"""An account unused for this long gives its unspent credit back to other processes."""
FORGET_AFTER_S = 600.0
TICK_S = 0.5
MAX_REMEMBERED = 10_000
"""Keyed requests remembered for repeats that arrive before billing has received the event."""
MAX_WAIT_S = 5.0
"""How long a request waits for terms or credit."""
RELEASE_S = 5.0
"""How long a stopping process tries to give back its unspent credit."""

log = structlog.get_logger()


class LeaseManager:
    """Owns the lease terms and credit reservations of the accounts this process serves.

    Args:
        journal: id of this process run; billing keeps its grants under it.
        max_age_s: how long postpaid terms stay valid while billing is unavailable.
        max_looks: the most accounts to look at in one tick, so that it does not take long.
    """

    def __init__(
        self,
        billing: BillingClient,
        *,
        journal: str,
        max_age_s: float,
        max_looks: int = 5_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_looks = max_looks
        self._billing = billing
        self._leases = LeaseClient(billing, journal=journal, clock=clock)
        self._max_age_s = max_age_s
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._journalled: dict[str, Spending] = {}
        """Recent keyed requests by event id: journalled here, perhaps not yet known to billing."""
        self._round: Iterator[Account] = iter(())
        """The accounts that have not been looked at since the last round began."""
        self._parked: dict[str, CreditReservation] = {}
        """Reservations of forgotten accounts: their amounts stay cumulative to the end."""

    def admit_now(self, account_id: str) -> bool:
        """Admit a request without waiting; return False, with no effect, if it has to wait.

        Raises:
            RateLimited: the account is over its rate limit.
        """
        now = self._clock()
        account = self._find_ready(account_id, now)
        if account is None:
            return False
        account.admit(now)
        return True

    async def admit(self, account_id: str) -> None:
        """Count a request against the account's rate limit, even if it is refused later.

        Raises:
            RateLimited: the account is over its rate limit.
            Unavailable: the account's terms are unknown, and billing does not answer.
        """
        if not self.admit_now(account_id):
            account = await self._with_terms(account_id)
            account.admit(self._clock())

    def admit_and_spend(self, account_id: str, model: str, rows: int) -> Spending | None:
        """Admit a request and reserve its cost; return None, with no effect, if it has to wait.

        Raises:
            PaymentRequired: as `spend`; nothing has changed.
        """
        now = self._clock()
        account = self._find_ready(account_id, now)
        if account is None or not account.is_within_rate(now):
            return None
        spending = self._reserve(account, model, rows, now)
        if spending is not None:
            account.admit(now)
        return spending

    def withdraw(self, account_id: str, spending: Spending) -> None:
        """Undo `admit_and_spend`: the request begins anew on another path."""
        spending.free()
        account = self._accounts.get(account_id)
        if account is not None:
            account.readmit()

    def spend_now(self, account_id: str, model: str, rows: int) -> Spending | None:
        """Reserve what a request costs; return None, with no effect, if it has to wait.

        Raises:
            PaymentRequired: as `spend`, which also knows which repeats are paid.
        """
        now = self._clock()
        account = self._find_ready(account_id, now)
        return None if account is None else self._reserve(account, model, rows, now)

    async def spend(
        self, account_id: str, model: str, rows: int, *, event_id: str | None = None
    ) -> Spending:
        """Reserve what an admitted request costs.

        This waits only if terms or credit have to be requested first. The amount stays spent
        unless it is freed.

        Args:
            event_id: the id of the request's event, if a repeat of the request would have the same.

        Raises:
            PaymentRequired: the account has no plan, no price for the model, or no credit.
            CreditReservedElsewhere: other processes have reserved the account's credit.
            Unavailable: billing does not answer.
        """
        try:
            return self.spend_now(account_id, model, rows) or await self._spend_when_ready(
                account_id, model, rows
            )
        except PaymentRequired:
            paid = await self._find_paid(event_id) if event_id is not None else None
            if paid is None:
                raise
            account = self._accounts.get(account_id)
            return paid._replace(bucket=account.bucket if account else None)

    async def quote(self, account_id: str, model: str) -> Spending:
        """Return the spending of a request under a test key: nothing, in the account's currency.

        Raises:
            PaymentRequired: the account has no plan, or no price for the model.
            Unavailable: the account's terms are unknown, and billing does not answer.
        """
        price = (await self._with_terms(account_id)).price(model)
        return Spending(0, price.currency, price.price_id, owed=False, is_test=True)

    def remember(self, event_id: str, spending: Spending) -> None:
        """Remember a journalled keyed request, so that its repeat is served even at balance 0.

        This covers repeats to this process. Other processes serve a repeat once billing has
        received the event.
        """
        self._journalled[event_id] = spending._replace(reservation=None, owed=False, bucket=None)
        if len(self._journalled) > MAX_REMEMBERED:
            del self._journalled[next(iter(self._journalled))]

    async def run(self) -> None:
        """Renew the terms in use and give back unused credit until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            if not self._leases.is_backing_off:
                await self.tick()

    async def tick(self) -> None:
        """Request a lease for every account that is due, and forget unused accounts.

        Of very many accounts, each tick looks at the next ones only.
        """
        looked_at = list(islice(self._round, self._max_looks))
        if not looked_at:
            self._round = iter(list(self._accounts.values()))
            looked_at = list(islice(self._round, self._max_looks))
        for number, account in enumerate(looked_at):
            now = self._clock()
            unused_s = now - account.used_at
            unneeded = unused_s >= IDLE_AFTER_S or not account.prepaid
            if unneeded and account.has_unspent_credit:
                self._leases.request(account, idle=True)
            elif self._is_due(account, now):
                self._leases.request(account)
            elif unused_s >= FORGET_AFTER_S and not account.waiting:
                del self._accounts[account.id]
                if account.reservation.granted or account.reservation.spent:
                    self._parked[account.id] = account.reservation
            if number % 1_000 == 999:
                await asyncio.sleep(0)

    async def release(self) -> None:
        """Give back all unspent credit. Call this once no request is running any more.

        If a release does not reach billing, the credit returns when the journal is closed.
        """
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._leases.drain()  # a response under way may still grant credit
                for account in self._accounts.values():
                    if account.has_unspent_credit:
                        self._leases.request(account, idle=True)
                await self._leases.drain()
        except TimeoutError:
            log.warning("credit_release_timed_out")

    def _is_due(self, account: Account, now: float) -> bool:
        if account.rate_limited:
            return True
        if account.terms is None:
            return False  # the request that added it is waiting for its first lease
        if account.used_at <= account.sent_at:
            return False
        return now - account.sent_at >= RENEW_AFTER_S or (
            account.prepaid and account.needs_credit(now)
        )

    def _reserve(self, account: Account, model: str, rows: int, now: float) -> Spending | None:
        """Reserve what a request costs; return None if the credit at hand is not enough.

        Raises:
            PaymentRequired: the account has no plan, no price for the model, or no credit.
        """
        price = account.price(model)
        amount = price.of(rows)
        if not account.prepaid:
            return Spending.of(account, price, amount)
        if not account.reserve(amount, now):
            return None
        if account.needs_credit(now) and not self._leases.is_backing_off:
            self._leases.request(account)
        return Spending.of(account, price, amount, account.reservation)

    async def _spend_when_ready(self, account_id: str, model: str, rows: int) -> Spending:
        """Reserve what a request costs, waiting for terms and then for credit."""
        account = await self._with_terms(account_id)
        now = self._clock()
        if spending := self._reserve(account, model, rows, now):
            return spending
        price = account.price(model)
        amount = price.of(rows)
        account.check_refusal(amount, now)
        reservation = await self._wait(account, amount)
        if reservation is None:  # the account's plan turned postpaid while the request waited
            price = account.price(model)
            amount = price.of(rows)
        return Spending.of(account, price, amount, reservation)

    def _find_ready(self, account_id: str, now: float) -> Account | None:
        """Return an account that can be served from memory, and mark it as used."""
        account = self._accounts.get(account_id)
        if (
            account is None
            or account.needs_terms(now, max_age_s=self._max_age_s)
            or (now - account.sent_at > FRESH_S and self._may_be_refreshed(account, now))
        ):
            return None
        account.used_at = now
        return account

    def _may_be_refreshed(self, account: Account, now: float) -> bool:
        """Return whether old terms are worth waiting for: neither just tried nor in an outage."""
        return now - account.refreshed_at > REFRESH_S and not self._leases.is_backing_off

    async def _with_terms(self, account_id: str) -> Account:
        """Return an account with valid terms, waiting for them if necessary."""
        now = self._clock()
        account = self._accounts.get(account_id) or self._add(account_id, now)
        account.used_at = now  # so that it is not forgotten while this request waits
        if account.needs_terms(now, max_age_s=self._max_age_s):
            await self._wait(account, 0)
        elif now - account.sent_at > FRESH_S and self._may_be_refreshed(account, now):
            # The account is back after a pause, and its plan may have changed meanwhile.
            with suppress(Unavailable):
                await self._wait(account, 0, at_most_s=REFRESH_S)
            account.refreshed_at = self._clock()
        return account

    def _add(self, account_id: str, now: float) -> Account:
        account = Account(
            account_id,
            used_at=now,
            requests=RateMeter(now),
            money=RateMeter(now),
            reservation=self._parked.pop(account_id, CreditReservation()),
        )
        self._accounts[account_id] = account
        return account

    async def _wait(
        self, account: Account, amount: int, *, at_most_s: float = MAX_WAIT_S
    ) -> CreditReservation | None:
        """Wait for the next lease and, if the account is prepaid, for the amount to be reserved.

        Raises:
            PaymentRequired, CreditReservedElsewhere: as billing answered.
            Unavailable: billing did not answer.
        """
        paid = asyncio.get_running_loop().create_future()
        account.waiting.append(Waiter(amount, paid))
        self._leases.request(account)
        try:
            async with asyncio.timeout(at_most_s):
                reservation: CreditReservation | None = await paid
                return reservation
        except TimeoutError as error:
            _free_if_reserved(paid, amount)
            raise Unavailable(TERMS_UNAVAILABLE) from error
        except asyncio.CancelledError:
            _free_if_reserved(paid, amount)
            raise

    async def _find_paid(self, event_id: str) -> Spending | None:
        """Return what a request cost when it was first answered, or None if it was never charged.

        Its repeat is served without a reservation, and so without an event. An event settles
        against the credit reservation (`settled += amount`), and since this one is a duplicate, its
        amount goes back to the account (`available += amount`). That adds up only if the amount was
        reserved, as it is for any other repeat. With nothing reserved, the same event would take
        `settled` beyond `granted` and leave credit in `available` that does not exist. Nothing is
        owed, so there is nothing to journal.

        Raises:
            Unavailable: billing does not answer.
        """
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                charged = await self._billing.find_charge(event_id)
        except (BillingError, TimeoutError) as error:
            raise Unavailable(
                "Cannot check right now whether this request was already charged."
            ) from error
        if charged is None:
            return self._journalled.get(event_id)
        return Spending(
            parse_amount(charged.amount), charged.currency, charged.price_id, owed=False
        )


def _free_if_reserved(paid: "asyncio.Future[CreditReservation | None]", amount: int) -> None:
    """Free an amount that was reserved for a request just as the request gave up waiting."""
    if paid.done() and not paid.cancelled() and paid.exception() is None:
        reservation = paid.result()
        if reservation is not None:
            reservation.free(amount)
