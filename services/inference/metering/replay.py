"""Replay of a journal folder: send the segments of dead runs and the dead letters again.

This is for a folder that no process uses any more, such as a volume that outlived its pod, and for
dead letters once the reason for their refusal is gone. Billing counts every event once, so a replay
may be repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from services.common.contracts import SourceReport
from services.inference.backoff import Backoff
from services.inference.metering import delivery
from services.inference.metering.billing_client import BillingClient, BillingError
from services.inference.metering.delivery import Delivery, deliver, ship_batch
from services.inference.metering.journal import dead_letters, segments
from services.inference.metering.journal.segments import Segment

ATTEMPTS = 5
FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 10.0

T = TypeVar("T")


@dataclass(slots=True)
class Replayed:
    """The outcome of a replay: counts of events, except for `runs`."""

    runs: int = 0
    """Dead runs that have been delivered completely."""
    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    """Dead letters that remain."""
    undelivered: int = 0
    """Journalled events that were not delivered; they are still in the folder."""
    failure: str | None = None
    """Why the replay ended early."""

    def count(self, result: Delivery) -> None:
        self.accepted += result.accepted
        self.duplicates += result.duplicates
        self.conflicts += result.conflicts


async def replay(
    folder: Path, billing: BillingClient, *, first_pause_s: float = FIRST_PAUSE_S
) -> Replayed:
    """Send everything in a journal folder; retry each call a few times.

    Runs that are alive, or that another process has taken over, are left alone.

    Args:
        first_pause_s: the longest pause after a call's first failure, in seconds.

    Raises:
        OSError: the folder cannot be read or written.
    """
    replayed = Replayed()
    retry = partial(_with_retries, first_pause_s=first_pause_s)
    runs = await asyncio.to_thread(segments.claim_dead, folder)
    letters = await asyncio.to_thread(dead_letters.read, folder)
    try:
        await _send_letters(folder, billing, letters, replayed, retry)
        while runs:
            await _ship_run(folder, billing, runs[0], replayed, retry)
            del runs[0]
    except BillingError as error:
        replayed.failure = str(error)
    for segment in [segment for run in runs for segment in run]:
        replayed.undelivered += segment.unshipped_lines()
        segment.release()
    replayed.rejected = len(await asyncio.to_thread(dead_letters.read, folder))
    return replayed


async def _send_letters(
    folder: Path,
    billing: BillingClient,
    letters: list[dead_letters.DeadLetter],
    replayed: Replayed,
    retry: "_Retry",
) -> None:
    """Send dead letters again; remove those that billing takes from the file."""
    for start in range(0, len(letters), delivery.MAX_BATCH_LINES):
        batch = [each for each in letters[start : start + delivery.MAX_BATCH_LINES] if each.event]
        events = [each.event for each in batch if each.event is not None]
        result = await retry(partial(deliver, billing, events))
        replayed.count(result)
        refused = {refusal.event for refusal in result.refused}
        taken = {each.line for each in batch if each.event not in refused}
        if taken:
            await asyncio.to_thread(dead_letters.remove, folder, taken)


async def _ship_run(
    folder: Path,
    billing: BillingClient,
    run: list[Segment],
    replayed: Replayed,
    retry: "_Retry",
) -> None:
    """Ship a dead run, report it closed, and delete its files."""
    for segment in run:
        while segment.shipped < segment.size:
            ship = partial(ship_batch, segment, billing, folder=folder)
            replayed.count(await retry(ship))
    report = SourceReport(last=max(segment.last for segment in run), closed=True)
    await retry(partial(billing.report, run[0].journal, report))
    for segment in run:
        segment.delete()
    replayed.runs += 1


class _Retry(Protocol):
    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T: ...


async def _with_retries(call: Callable[[], Awaitable[T]], *, first_pause_s: float) -> T:
    """Call, and retry a few times with growing pauses."""
    backoff = Backoff(first_s=first_pause_s, max_s=MAX_PAUSE_S)
    for _ in range(ATTEMPTS - 1):
        try:
            return await call()
        except BillingError:
            await asyncio.sleep(backoff.fail())
    return await call()
