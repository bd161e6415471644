"""Lease requests to billing: many accounts in one call, one call at a time.

With one call at a time, a response always belongs to the latest lease request. When a response is
lost, this process cannot know whether billing acted on the request, but any later response settles
that: billing ignores requests older than one it has taken.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from services.common.contracts import MAX_LEASES_PER_CALL, LeaseRequest
from services.inference.backoff import Backoff
from services.inference.metering.billing_client import BillingClient, BillingError
from services.inference.metering.leases.accounts import Account

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0

log = structlog.get_logger()


class LeaseClient:
    """Owns the queue of accounts whose leases are to be requested.

    Args:
        journal: id of this process run; billing keeps its grants under it.
    """

    def __init__(
        self,
        billing: BillingClient,
        *,
        journal: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._billing = billing
        self._journal = journal
        self._clock = clock
        self._queued: dict[str, tuple[Account, bool]] = {}
        self._calling: asyncio.Task[None] | None = None
        self._sequence = 0
        self._backoff = Backoff(first_s=FIRST_PAUSE_S, max_s=MAX_PAUSE_S)
        self._suspended_until = 0.0

    def request(self, account: Account, *, idle: bool = False) -> None:
        """Include an account in the next call.

        All accounts requested in the same turn of the event loop share one call.

        Args:
            idle: the account is not in use, so its unspent credit is given back.
        """
        self._queued[account.id] = (account, idle)
        if self._calling is None:
            self._calling = asyncio.ensure_future(self._call_until_empty())

    @property
    def is_backing_off(self) -> bool:
        """Whether billing failed a moment ago, so that only a waiting request should call it."""
        return self._clock() < self._suspended_until

    async def drain(self) -> None:
        """Wait until every queued account has been requested."""
        while self._calling is not None:
            await asyncio.shield(self._calling)

    async def _call_until_empty(self) -> None:
        try:
            while self._queued:
                batch = list(self._queued.values())[:MAX_LEASES_PER_CALL]
                for account, _ in batch:
                    del self._queued[account.id]
                await self._call(batch)
        finally:
            self._calling = None

    async def _call(self, batch: list[tuple[Account, bool]]) -> None:
        sent_at = self._clock()
        accounts: list[Account] = []
        requests: list[LeaseRequest] = []
        for account, idle in batch:
            self._sequence += 1
            try:
                requests.append(
                    account.lease_request(
                        journal=self._journal, sequence=self._sequence, now=sent_at, idle=idle
                    )
                )
                accounts.append(account)
            except ValueError:
                account.fail()
        try:
            leases = await self._billing.request_leases(requests) if requests else []
        except BillingError as error:
            self._call_failed(accounts, str(error))
            return
        self._backoff.succeed()
        self._suspended_until = 0.0
        now = self._clock()
        for account, terms in zip(accounts, leases, strict=True):
            try:
                account.apply_terms(terms, sent_at=sent_at, now=now)
            except ValueError as error:
                log.error("lease_response_invalid", account=account.id, error=str(error))
                account.fail()
            if account.waiting:
                self.request(account)

    def _call_failed(self, accounts: list[Account], error: str) -> None:
        self._suspended_until = self._clock() + self._backoff.fail()
        if self._backoff.is_worth_logging:
            log.warning(
                "lease_request_failed",
                error=error,
                accounts=len(accounts),
                failures=self._backoff.failures,
            )
        for account in accounts:
            account.fail()
        # Accounts that no request is waiting for are queued again by their next request.
        self._queued = {
            id: (account, idle)
            for id, (account, idle) in self._queued.items()
            if idle or account.waiting
        }
