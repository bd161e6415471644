"""Delivery of usage events to billing: one batch of a segment and its outcome."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from services.inference.metering.billing_client import BillingClient, BillingError
from services.inference.metering.journal import dead_letters, segments
from services.inference.metering.journal.dead_letters import Refusal
from services.inference.metering.journal.segments import Segment

MAX_BATCH_LINES = 2_000
MAX_BATCH_BYTES = 2 * 2**20
PIECE_LINES = 500
PIECE_BYTES = 2**18
"""A batch is read in pieces, so that each stops the event loop for well below a millisecond."""

_BATCH_REFUSED = {400, 413, 422}

log = structlog.get_logger()


@dataclass(slots=True)
class Delivery:
    """The outcome of delivering some events."""

    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    refused: list[Refusal] = field(default_factory=list)

    def add(self, other: "Delivery") -> None:
        """Add the outcome of more events."""
        self.accepted += other.accepted
        self.duplicates += other.duplicates
        self.conflicts += other.conflicts
        self.refused += other.refused


async def deliver(billing: BillingClient, events: Sequence[bytes]) -> Delivery:
    """Send a batch; if it is refused as a whole, halve it until the bad event is found.

    Raises:
        BillingError: billing may not have taken all of it; deliver it again.
    """
    if not events:
        return Delivery()
    try:
        result = await billing.send_events(events)
    except BillingError as error:
        if error.status not in _BATCH_REFUSED:
            raise
        if len(events) == 1:
            return Delivery(refused=[Refusal(events[0], f"billing answered {error.status}", False)])
        half = len(events) // 2
        delivery = await deliver(billing, events[:half])
        delivery.add(await deliver(billing, events[half:]))
        return delivery
    return Delivery(
        accepted=result.accepted,
        duplicates=result.duplicates,
        conflicts=result.conflicts,
        refused=[Refusal(events[each.index], each.reason, True) for each in result.rejected],
    )


async def ship_batch(segment: Segment, billing: BillingClient, *, folder: Path) -> Delivery:
    """Ship the next lines of a segment; put events that billing will not take in the dead letters.

    Args:
        folder: the journal's folder, which also has the dead letters.

    Raises:
        BillingError: billing may not have taken them; ship them again.
        OSError: a dead letter could not be written, so its line must stay in the journal.
    """
    lines, events = await _read_batch(segment)
    delivery = await deliver(billing, [event for event in events if event is not None])
    delivery.refused += [
        Refusal(line, "the line is damaged", False)
        for line, event in zip(lines, events, strict=True)
        if event is None
    ]
    if delivery.refused:
        # Last, so that a batch that is sent many times adds its dead letters only once.
        await asyncio.to_thread(dead_letters.append, folder, delivery.refused)
        log.error(
            "dead_letters_written",
            reason=delivery.refused[0].reason,
            count=len(delivery.refused),
            file=dead_letters.FILE_NAME,
        )
    segment.acknowledge(sum(len(line) + 1 for line in lines))
    return delivery


async def _read_batch(segment: Segment) -> tuple[list[bytes], list[bytes | None]]:
    """Return the next lines, and the event of each, or None where a line is damaged."""
    lines: list[bytes] = []
    events: list[bytes | None] = []
    size = 0
    while len(lines) < MAX_BATCH_LINES and size < MAX_BATCH_BYTES:
        decode = segments.event_in if segment.is_in_memory else segments.decode_line
        piece = segment.read(max_lines=PIECE_LINES, max_bytes=PIECE_BYTES, skip=size)
        if not piece:
            break
        lines += piece
        events += map(decode, piece)
        size += sum(map(len, piece)) + len(piece)
        await asyncio.sleep(0)
    return lines, events
