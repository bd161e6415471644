"""The calls to billing for terms and money: many accounts in one, one call at a time.

One at a time because an answer then is always the answer to the latest ask. Of a call whose answer
is lost nobody knows whether billing heard it, but any later answer settles that: billing ignores
asks older than one it has taken.
"""

import asyncio
import random
import time
from collections.abc import Callable

import structlog

from services.common.contracts import MAX_ASKS_PER_CALL, LeaseAsk
from services.inference.metering.accounts import Account
from services.inference.metering.billing import BillingClient, BillingError

MAX_BACKOFF_S = 10.0

log = structlog.get_logger()


class Asker:
    """Owns the queue of accounts to ask for.

    Args:
        journal: id of this process run, under which billing keeps what it granted.
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
        self._wanted: dict[str, tuple[Account, bool]] = {}
        self._calling: asyncio.Task[None] | None = None
        self._ask_no = 0
        self._failures = 0
        self._rests_until = 0.0

    def want(self, account: Account, *, idle: bool = False) -> None:
        """Have an account in the next call; all that is wanted in one turn goes together.

        Args:
            idle: nobody uses it, so what it holds is given back.
        """
        self._wanted[account.id] = (account, idle)
        if self._calling is None:
            self._calling = asyncio.ensure_future(self._call_while_wanted())

    @property
    def rests(self) -> bool:
        """Whether billing failed a moment ago, so that only a waiting request should ask."""
        return self._clock() < self._rests_until

    async def finish(self) -> None:
        """Wait until all that is wanted has been asked for."""
        while self._calling is not None:
            await asyncio.shield(self._calling)

    async def _call_while_wanted(self) -> None:
        try:
            while self._wanted:
                batch = list(self._wanted.values())[:MAX_ASKS_PER_CALL]
                for account, _ in batch:
                    del self._wanted[account.id]
                await self._call(batch)
        finally:
            self._calling = None

    async def _call(self, batch: list[tuple[Account, bool]]) -> None:
        sent_at = self._clock()
        asked: list[Account] = []
        asks: list[LeaseAsk] = []
        for account, idle in batch:
            self._ask_no += 1
            try:
                asks.append(
                    account.ask(journal=self._journal, ask_no=self._ask_no, now=sent_at, idle=idle)
                )
                asked.append(account)
            except ValueError:
                account.fail()
        try:
            answers = await self._billing.ask(asks) if asks else []
        except BillingError as error:
            self._failed(asked, str(error))
            return
        self._failures, self._rests_until = 0, 0.0
        now = self._clock()
        for account, terms in zip(asked, answers, strict=True):
            try:
                account.answer(terms, sent_at=sent_at, now=now)
            except ValueError as error:
                log.error("terms_unreadable", account=account.id, error=str(error))
                account.fail()
            if account.waiting:
                self.want(account)

    def _failed(self, asked: list[Account], error: str) -> None:
        self._failures += 1
        pause_s = min(MAX_BACKOFF_S, 0.25 * 2 ** min(self._failures, 10))
        self._rests_until = self._clock() + pause_s * random.uniform(0.5, 1.0)  # noqa: S311  # jitter
        if self._failures in (1, 5) or self._failures % 60 == 0:
            log.warning(
                "terms_not_to_be_had", error=error, accounts=len(asked), failures=self._failures
            )
        for account in asked:
            account.fail()
        # What nobody waits for is wanted again by the next request after the rest.
        self._wanted = {
            id: (account, idle)
            for id, (account, idle) in self._wanted.items()
            if idle or account.waiting
        }
