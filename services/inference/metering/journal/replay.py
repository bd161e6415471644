"""Replay of a journal folder: send the segments of dead runs and the dead letters again.

This is for a folder that no process uses any more, such as a volume that outlived its pod, and for
dead letters once the reason for their refusal is gone. Billing counts every event once, so a replay
may be repeated.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from services.common.contracts import SourceReport
from services.inference.metering import delivery
from services.inference.metering.billing import BillingClient, BillingError
from services.inference.metering.delivery import Delivery, deliver, ship_batch
from services.inference.metering.journal import dead_letters, segments
from services.inference.metering.journal.segments import Segment

ATTEMPTS = 5
FIRST_PAUSE_S = 0.2

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


async def replay(folder: Path, billing: BillingClient) -> Replayed:
    """Send everything in a journal folder; retry each call a few times.

    Runs that are alive, or that another process has taken over, are left alone.

    Raises:
        OSError: the folder cannot be read or written.
    """
    replayed = Replayed()
    runs = await asyncio.to_thread(segments.claim_dead, folder)
    letters = await asyncio.to_thread(dead_letters.read, folder)
    try:
        await _send_letters(folder, billing, letters, replayed)
        while runs:
            await _ship_run(folder, billing, runs[0], replayed)
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
) -> None:
    """Send dead letters again; remove those that billing takes from the file."""
    for start in range(0, len(letters), delivery.MAX_BATCH_LINES):
        batch = [each for each in letters[start : start + delivery.MAX_BATCH_LINES] if each.event]
        events = [each.event for each in batch if each.event is not None]
        result = await _with_retries(partial(deliver, billing, events))
        replayed.count(result)
        refused = {refusal.event for refusal in result.refused}
        taken = {each.line for each in batch if each.event not in refused}
        if taken:
            await asyncio.to_thread(dead_letters.remove, folder, taken)


async def _ship_run(
    folder: Path, billing: BillingClient, run: list[Segment], replayed: Replayed
) -> None:
    for segment in run:
        while segment.shipped < segment.size:
            ship = partial(ship_batch, segment, billing, folder=folder)
            replayed.count(await _with_retries(ship))
    report = SourceReport(last=max(segment.last for segment in run), closed=True)
    await _with_retries(partial(billing.report, run[0].journal, report))
    for segment in run:
        segment.delete()
    replayed.runs += 1


async def _with_retries(call: Callable[[], Awaitable[T]]) -> T:
    """Call, and retry a few times with growing pauses."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return await call()
        except BillingError:
            pause_s = FIRST_PAUSE_S * 2**attempt
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  # jitter
    return await call()
