"""The usage journal of this process: an event is durable before its prediction is sent.

What "durable" means is a setting. With `process`, events survive the death of the process (the
kernel has the bytes); with `disk`, that of the machine (the bytes are synced). Requests that finish
in the same turn of the event loop share one write and one sync.
"""

import asyncio
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal

import structlog

from services.common.errors import Unavailable
from services.inference.metering.events import with_sequence
from services.inference.metering.journal import segments
from services.inference.metering.journal.segments import Damaged, Segment

TYPICAL_LINE_BYTES = 600
TAILS = 2
"""How many segments keep their last bytes in memory; those of older ones are read from the disk."""
REFUSE_AFTER_FAILURE_S = 1.0
"""How long requests are refused after a failed write, before the next one tries again."""

log = structlog.get_logger()


class JournalFull(Unavailable):
    """The usage journal is full; nothing was predicted or billed."""

    code = "journal_full"

    def __init__(self) -> None:
        super().__init__("The usage journal is full; retry in 5 s.", retry_after_s=5)


class JournalBroken(Unavailable):
    """Usage cannot be recorded; nothing was answered or billed."""

    code = "journal_unavailable"

    def __init__(self) -> None:
        super().__init__("Usage cannot be recorded right now; retry in 5 s.", retry_after_s=5)


Settle = Callable[[JournalBroken | None], None]
"""Called once: with None when the events are durable, or with an error if none is billed."""


@dataclass(slots=True, eq=False)
class PendingEvents:
    """Events that wait for their commit."""

    events: Sequence[bytes]
    settle: Settle
    durable: bool = False


class Journal:
    """Owns the segments of this process run; numbers its events from 1 without gaps.

    Args:
        folder: on a local file system; created if missing.
        max_bytes: the limit of unshipped bytes, including those of dead runs.
        sync: what "durable" means; see the module.

    Raises:
        OSError: the folder cannot be created or written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        sync: Literal["process", "disk"] = "process",
        segment_bytes: int = segments.SEGMENT_BYTES,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.id = str(uuid.uuid4())
        self.segments: deque[Segment] = deque()
        """This run's segments with unshipped events, oldest first; the last one is open."""
        self.inherited_bytes = 0
        """Unshipped bytes of dead runs that this process has taken over."""
        self.broken = False
        self.grown = asyncio.Event()
        """Set when events have become durable."""
        self._max_bytes = max_bytes
        self._sync = sync
        self._segment_bytes = segment_bytes
        self._refuse_until = 0.0
        self._unshipped_bound = 0
        """An upper bound of this run's unshipped bytes, so that no request sums its segments."""
        self._pending: list[PendingEvents] = []
        self._pending_lines = 0
        self._commit_due = False
        self._syncing: asyncio.Task[None] | None = None
        self._unsynced = 0
        """Lines that are written but not durable."""
        self._roll(first=1)

    @property
    def last(self) -> int:
        """The sequence of the last durable event; 0 before the first."""
        return self.segments[-1].last

    @property
    def unshipped_bytes(self) -> int:
        return sum(s.size - s.shipped for s in self.segments) + self.inherited_bytes

    def check_room(self, *, in_flight: int) -> None:
        """Check that the usage of one more prediction can be journalled.

        Args:
            in_flight: how many predictions may still append.

        Raises:
            JournalFull: the limit is reached.
            JournalBroken: a write failed, either a moment ago or beyond repair.
        """
        if self.broken or time.monotonic() < self._refuse_until:
            raise JournalBroken
        lines = in_flight + self._pending_lines + self._unsynced
        room = self._max_bytes - self.inherited_bytes - lines * TYPICAL_LINE_BYTES
        if self._unshipped_bound >= room:
            self._unshipped_bound = self.unshipped_bytes - self.inherited_bytes
            if self._unshipped_bound >= room:
                raise JournalFull

    async def append(self, event: bytes) -> None:
        """Make an event durable.

        If cancelled before the write, the event is not journalled. During the write it may become
        billable, so the cancellation waits for the outcome and is dropped if the event is durable:
        what is billed must be answered.

        Args:
            event: a JSON object without its sequence.

        Raises:
            JournalBroken: the event is not durable and will not be billed.
        """
        if self.broken:
            raise JournalBroken
        done = asyncio.get_running_loop().create_future()
        entry = self.append_later([event], partial(_settle, done))
        try:
            await done
        except asyncio.CancelledError:
            if entry in self._pending:
                self._pending.remove(entry)
                self._pending_lines -= 1
                raise
            if self._syncing is not None:
                await asyncio.wait({self._syncing})
            if not entry.durable:
                raise

    def append_now(self, events: Sequence[bytes]) -> bool:
        """Make events durable at once; return False, with no effect, if they need a sync.

        Args:
            events: JSON objects without their sequences.

        Raises:
            JournalBroken: no event is durable, and none will be billed.
        """
        if self._sync == "disk":
            return False
        if self.broken:
            raise JournalBroken
        segment = self.segments[-1]
        data = _encode_lines(events, first=segment.last + 1)
        if not self._write(segment, data, lines=len(events)):
            raise JournalBroken
        self._count(segment, data, lines=len(events))
        return True

    def append_later(self, events: Sequence[bytes], settle: Settle) -> PendingEvents:
        """Make events durable with the next commit, and then call `settle`.

        Args:
            events: JSON objects without their sequences.
        """
        entry = PendingEvents(events, settle)
        self._pending.append(entry)
        self._pending_lines += len(events)
        if not self._commit_due and self._syncing is None:
            self._commit_due = True
            asyncio.get_running_loop().call_soon(self._commit)
        return entry

    async def check(self) -> str | None:
        """Return why the journal is not ready, or None if it is."""
        return "The usage journal cannot be written." if self.broken else None

    async def close(self, *, settled: bool) -> None:
        """Finish pending writes, then delete or release the files.

        Args:
            settled: billing has every event and knows that this run has ended, so the files are no
                longer needed.
        """
        while self._pending or self._syncing:
            await (self._syncing or asyncio.sleep(0))
        for segment in self.segments:
            if settled:
                segment.delete()
            else:
                segment.release()

    def _commit(self) -> None:
        """Write all pending events at once; in `disk` mode the sync follows in a thread."""
        self._commit_due = False
        entries = self._take_pending()
        if not entries:
            return  # all were cancelled
        segment = self.segments[-1]
        events = [event for entry in entries for event in entry.events]
        data = _encode_lines(events, first=segment.last + 1)
        if not self._write(segment, data, lines=len(events)):
            _refuse(entries)
        elif self._sync == "disk":
            self._unsynced = len(events)
            self._syncing = asyncio.ensure_future(self._sync_data(segment, data, entries))
        else:
            self._release(segment, data, entries)

    def _take_pending(self) -> list[PendingEvents]:
        entries, self._pending, self._pending_lines = self._pending, [], 0
        return entries

    def _write(self, segment: Segment, data: bytes, *, lines: int) -> bool:
        """Write lines, and return whether that succeeded."""
        try:
            segment.write(data)
        except (OSError, Damaged) as error:
            self.broken = isinstance(error, Damaged)
            self._refuse_until = time.monotonic() + REFUSE_AFTER_FAILURE_S
            log.error("journal_write_failed", error=str(error), events=lines)
            return False
        return True

    async def _sync_data(self, segment: Segment, data: bytes, entries: list[PendingEvents]) -> None:
        try:
            await asyncio.to_thread(os.fsync, segment.fd)
        except OSError as error:
            # The kernel may have dropped the pages and reports that only once, so stop for good.
            self.broken = True
            log.error("journal_sync_failed", error=str(error), events=self._unsynced)
            with suppress(Damaged):
                segment.cut()
            _refuse(entries + self._take_pending())
        else:
            self._release(segment, data, entries)
        self._syncing, self._unsynced = None, 0
        if self._pending:
            self._commit()

    def _release(self, segment: Segment, data: bytes, entries: list[PendingEvents]) -> None:
        self._count(segment, data, lines=sum(len(entry.events) for entry in entries))
        for entry in entries:
            entry.durable = True
            _tell(entry, None)

    def _count(self, segment: Segment, data: bytes, *, lines: int) -> None:
        """Count lines as durable."""
        segment.grow(data, lines=lines)
        self._unshipped_bound += len(data)
        self.grown.set()
        if segment.size >= self._segment_bytes:
            self._roll(first=segment.last + 1)

    def _roll(self, *, first: int) -> None:
        """Begin the next segment; if that fails, the current one keeps growing."""
        try:
            segment = segments.create(self.folder, self.id, first, sync=self._sync == "disk")
        except OSError:
            if not self.segments:
                raise
            log.exception("journal_roll_failed")
        else:
            self.segments.append(segment)
            if len(self.segments) > TAILS:
                self.segments[-1 - TAILS].tail = None


def _encode_lines(events: Sequence[bytes], *, first: int) -> bytes:
    """Return the lines of events, numbered from `first` on."""
    numbered = map(with_sequence, events, count(first))
    return b"".join(map(segments.encode_line, numbered))


def _refuse(entries: list[PendingEvents]) -> None:
    for entry in entries:
        _tell(entry, JournalBroken())


def _tell(entry: PendingEvents, error: JournalBroken | None) -> None:
    """Settle one entry; whatever goes wrong there, the others are settled too."""
    try:
        entry.settle(error)
    except Exception:
        log.exception("journal_settle_failed")


def _settle(done: asyncio.Future[None], error: JournalBroken | None) -> None:
    if done.done():
        return  # its request was cancelled
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
