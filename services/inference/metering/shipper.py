"""The shipper sends journalled events to billing: in order, in batches, retried until accepted.

After a crash between billing's response and the deletion of a segment, the segment is sent again
and billing drops the duplicates. Events that billing will not take go to the dead letters, with a
metric and a log line, and shipping continues.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

import orjson
import structlog

from services.common.contracts import SourceReport
from services.inference.backoff import Backoff
from services.inference.metering.billing_client import BillingClient, BillingError
from services.inference.metering.delivery import MAX_BATCH_BYTES, ship_batch
from services.inference.metering.journal import segments
from services.inference.metering.journal.journal import Journal
from services.inference.metering.journal.segments import Segment
from services.inference.metering.metrics import MeteringMetrics

LINGER_S = 0.2
"""How long the first event of a batch waits for more; a batch costs far more than its events."""
LOOK_FOR_DEAD_S = 5.0
MAX_DEAD_RUNS = 64
"""How many dead runs are taken over at once."""
REPORT_S = 30.0
FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 10.0
DRAIN_S = 10.0
"""How long a stopping process keeps trying to ship."""

log = structlog.get_logger()


class Shipper:
    """Ships the journal of this run and those of dead runs: call `run`, then `drain` to stop.

    Args:
        linger_s: how long the first event of a batch waits for more, in seconds.
        drain_s: how long `drain` keeps trying, in seconds.
    """

    def __init__(
        self,
        journal: Journal,
        billing: BillingClient,
        metrics: MeteringMetrics,
        *,
        linger_s: float = LINGER_S,
        drain_s: float = DRAIN_S,
    ) -> None:
        self._journal = journal
        self._billing = billing
        self._metrics = metrics
        self._dead: deque[list[Segment]] = deque()
        self._backoff = Backoff(first_s=FIRST_PAUSE_S, max_s=MAX_PAUSE_S)
        self._linger_s = linger_s
        self._drain_s = drain_s
        metrics.oldest_age.set_function(self._oldest_age_s)

    async def run(self) -> None:
        """Ship until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ship_as_it_grows())
            tasks.create_task(self._look_for_dead_runs())
            tasks.create_task(self._report_regularly())

    async def drain(self) -> None:
        """Ship what is left, within `drain_s`, and report the journal closed.

        This run's own events go first; another process can ship those of dead runs.
        """
        settled = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_s):
                while not settled:
                    settled = await self._backing_off(self._finish_own)
                while self._dead:
                    await self._backing_off(self._ship_dead)
        await self._journal.close(settled=settled)
        for run in self._dead:
            self._unlock(run)

    # -- loops -----------------------------------------------------------------------------------

    async def _ship_as_it_grows(self) -> None:
        while True:
            await self._journal.grown.wait()
            await asyncio.sleep(self._linger_s)
            self._journal.grown.clear()
            while self._dead or self._own():
                # Alternate, so that a dead run that cannot be shipped does not delay our own.
                if self._dead:
                    await self._backing_off(self._ship_dead)
                if self._own():
                    await self._backing_off(self._ship_own)
                if self._journal.unshipped_bytes < MAX_BATCH_BYTES:
                    await asyncio.sleep(self._linger_s)

    async def take_over_dead_runs(self) -> None:
        """Lock the segments of dead runs, so that they are shipped along with our own."""
        room = MAX_DEAD_RUNS - len(self._dead)
        try:
            claimed = await asyncio.to_thread(
                segments.claim_dead, self._journal.folder, at_most=room
            )
        except OSError as error:
            log.error("dead_run_search_failed", error=str(error))
            return
        if claimed:
            self._dead.extend(claimed)
            self._count_inherited()
            self._journal.grown.set()
            log.info("dead_runs_claimed", journals=[run[0].journal for run in claimed])

    async def _look_for_dead_runs(self) -> None:
        while True:
            await self.take_over_dead_runs()
            await asyncio.sleep(LOOK_FOR_DEAD_S)

    async def _report_regularly(self) -> None:
        while True:
            with suppress(BillingError):
                await self._billing_report(self._journal.id, last=self._journal.last, closed=False)
            await asyncio.sleep(REPORT_S)

    # -- shipping --------------------------------------------------------------------------------

    def _own(self) -> Segment | None:
        """Return this run's oldest segment with unshipped events."""
        return next((s for s in self._journal.segments if s.shipped < s.size), None)

    async def _backing_off(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Run a step and return True; if it fails, pause with growing backoff and return False."""
        try:
            await step()
        except (BillingError, OSError) as error:
            pause_s = self._backoff.fail()
            if self._backoff.is_worth_logging:
                log.warning("shipping_failed", error=str(error), failures=self._backoff.failures)
            await asyncio.sleep(pause_s)
            return False
        self._backoff.succeed()
        return True

    async def _ship_own(self) -> None:
        if segment := self._own():
            await self._ship_batch(segment)
        own = self._journal.segments
        while len(own) > 1 and own[0].shipped == own[0].size:
            own.popleft().delete()

    async def _finish_own(self) -> None:
        while self._own():
            await self._ship_own()
        await self._billing_report(self._journal.id, last=self._journal.last, closed=True)

    async def _ship_dead(self) -> None:
        """Ship one batch of the first dead run or, if all is shipped, report it closed.

        A run that cannot be read is released; the next search for dead runs finds it again. A run
        that billing will not take moves behind the others.
        """
        run = self._dead[0]
        try:
            for segment in run:
                if segment.shipped < segment.size:
                    await self._ship_batch(segment)
                    self._count_inherited()
                    return
            # Not always the newest: if no new segment could be created, the old one kept growing.
            last = max(segment.last for segment in run)
            await self._billing_report(run[0].journal, last=last, closed=True)
        except BillingError:
            self._dead.rotate(-1)
            raise
        except OSError:
            self._unlock(self._dead.popleft())
            self._count_inherited()
            raise
        self._dead.popleft()
        for segment in run:
            segment.delete()
        log.info("dead_run_shipped", journal=run[0].journal, last=last)

    @staticmethod
    def _unlock(run: list[Segment]) -> None:
        for segment in run:
            segment.release()

    async def _ship_batch(self, segment: Segment) -> None:
        delivery = await ship_batch(segment, self._billing, folder=self._journal.folder)
        self._metrics.shipped.inc(delivery.accepted)
        self._metrics.duplicates.inc(delivery.duplicates)
        self._metrics.rejected.inc(len(delivery.refused))
        if delivery.conflicts:
            self._metrics.conflicts.inc(delivery.conflicts)
            log.error("usage_conflicts_reported", count=delivery.conflicts)

    def _oldest_age_s(self) -> float:
        """Return the age of the oldest unshipped event in seconds; 0 without one."""
        now = self._billing.now()
        runs = [*self._dead, self._journal.segments]
        heads = (next((s for s in run if s.shipped < s.size), None) for run in runs)
        return max((_age_s(head, now) for head in heads if head), default=0.0)

    async def _billing_report(self, journal: str, *, last: int, closed: bool) -> None:
        await self._billing.report(journal, SourceReport(last=last, closed=closed))

    def _count_inherited(self) -> None:
        self._journal.inherited_bytes = sum(s.size - s.shipped for run in self._dead for s in run)


def _age_s(segment: Segment, now: float) -> float:
    """Return the age of a segment's first unshipped event in seconds; 0 if it cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        [line] = segment.read(max_lines=1, max_bytes=4096)
        written = datetime.fromisoformat(orjson.loads(segments.decode_line(line) or b"")["time"])
        return max(now - written.timestamp(), 0.0)
    return 0.0
