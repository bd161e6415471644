"""Brings journalled usage to billing: in order, in batches, again and again until it is taken.

A crash between billing's answer and the deletion of a segment sends the segment again; billing
drops the repeats. What billing will never take goes to the dead letters, with a metric and a log
line, and shipping goes on.
"""

import asyncio
import random
from collections import deque
from contextlib import suppress

import structlog

from services.common.contracts import SourceReport
from services.inference.metering import segments
from services.inference.metering.billing import BillingClient, BillingError
from services.inference.metering.delivery import ship_batch
from services.inference.metering.journal import Journal
from services.inference.metering.metrics import MeteringMetrics
from services.inference.metering.segments import Segment

LINGER_S = 0.05
"""How long the first event of a batch waits for company."""
LOOK_FOR_DEAD_S = 5.0
REPORT_S = 30.0
MAX_BACKOFF_S = 10.0
DRAIN_S = 10.0
"""How long a stopping process goes on trying to ship."""

log = structlog.get_logger()


class Shipper:
    """Ships this run's journal and those of dead runs; `run` until stopped, then `drain`."""

    def __init__(self, journal: Journal, billing: BillingClient, metrics: MeteringMetrics) -> None:
        self._journal = journal
        self._billing = billing
        self._metrics = metrics
        self._dead: deque[list[Segment]] = deque()
        self._failures = 0

    async def run(self) -> None:
        """Ship for ever; cancel to stop."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ship_as_it_grows())
            tasks.create_task(self._look_for_dead_runs())
            tasks.create_task(self._report_regularly())

    async def drain(self) -> None:
        """Ship what is left, within `DRAIN_S`, and close the journal's account with billing."""
        settled = False
        with suppress(TimeoutError, BillingError):
            async with asyncio.timeout(DRAIN_S):
                while self._unshipped():
                    await self._ship_or_back_off()
                last = self._journal.last
                await self._billing_report(self._journal.id, last=last, closed=True)
                settled = True
        await self._journal.close(settled=settled)
        for run in self._dead:
            for segment in run:
                segment.release()

    # -- loops -----------------------------------------------------------------------------------

    async def _ship_as_it_grows(self) -> None:
        while True:
            await self._journal.grown.wait()
            await asyncio.sleep(LINGER_S)
            self._journal.grown.clear()
            while self._unshipped():
                await self._ship_or_back_off()

    async def take_over_dead_runs(self) -> None:
        """Lock what other runs left behind when they died, to be shipped before our own."""
        try:
            claimed = await asyncio.to_thread(segments.claim_dead, self._journal.folder)
        except OSError as error:
            log.error("dead_runs_unreadable", error=str(error))
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

    def _unshipped(self) -> bool:
        return bool(self._dead) or any(s.shipped < s.size for s in self._journal.held)

    async def _ship_or_back_off(self) -> None:
        """One batch; after a failure wait, longer each time, with jitter."""
        try:
            if self._dead:
                await self._ship_dead(self._dead[0])
            else:
                await self._ship_own()
        except (BillingError, OSError) as error:
            self._failures += 1
            pause_s = min(MAX_BACKOFF_S, 0.1 * 2 ** min(self._failures, 10))
            if self._failures in (1, 5) or self._failures % 60 == 0:
                log.warning("shipping_failed", error=str(error), failures=self._failures)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  # jitter
        else:
            self._failures = 0

    async def _ship_own(self) -> None:
        held = self._journal.held
        segment = next(s for s in held if s.shipped < s.size)
        await self._ship_batch(segment)
        while len(held) > 1 and held[0].shipped == held[0].size:
            held.popleft().delete()

    async def _ship_dead(self, run: list[Segment]) -> None:
        """One batch of a dead run, or, when all is shipped, its end."""
        for segment in run:
            if segment.shipped < segment.size:
                await self._ship_batch(segment)
                self._count_inherited()
                return
        await self._billing_report(run[0].journal, last=run[-1].last, closed=True)
        self._dead.popleft()
        for segment in run:
            segment.delete()
        log.info("dead_run_shipped", journal=run[0].journal, last=run[-1].last)

    async def _ship_batch(self, segment: Segment) -> None:
        delivery = await ship_batch(segment, self._billing, folder=self._journal.folder)
        self._metrics.shipped.inc(delivery.accepted)
        self._metrics.duplicates.inc(delivery.duplicates)
        self._metrics.rejected.inc(len(delivery.refused))
        if delivery.conflicts:
            self._metrics.conflicts.inc(delivery.conflicts)
            log.error("usage_conflicts", count=delivery.conflicts)

    async def _billing_report(self, journal: str, *, last: int, closed: bool) -> None:
        await self._billing.report(journal, SourceReport(last=last, closed=closed))

    def _count_inherited(self) -> None:
        self._journal.inherited_bytes = sum(s.size - s.shipped for run in self._dead for s in run)
