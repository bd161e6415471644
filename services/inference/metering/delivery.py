"""Handing usage to billing: one batch of a segment, and what became of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from services.inference.metering import dead_letters, segments
from services.inference.metering.billing import BillingClient, BillingError
from services.inference.metering.dead_letters import Refusal
from services.inference.metering.segments import Segment

MAX_BATCH_LINES = 2_000
MAX_BATCH_BYTES = 2 * 2**20

_TOO_MUCH_OR_BAD = {400, 413, 422}

log = structlog.get_logger()


@dataclass(slots=True)
class Delivery:
    """What billing made of some events."""

    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    refused: list[Refusal] = field(default_factory=list)

    def add(self, other: "Delivery") -> None:
        """Count what became of more events."""
        self.accepted += other.accepted
        self.duplicates += other.duplicates
        self.conflicts += other.conflicts
        self.refused += other.refused


async def deliver(billing: BillingClient, events: Sequence[bytes]) -> Delivery:
    """Send a batch; one refused as a whole is halved until the culprit stands alone.

    Raises:
        BillingError: not all of it is known to have been taken; deliver it again.
    """
    if not events:
        return Delivery()
    try:
        result = await billing.send_events(events)
    except BillingError as error:
        if error.status not in _TOO_MUCH_OR_BAD:
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
    """Ship the next lines of a segment; what will never be billed goes to the dead letters.

    Args:
        folder: the journal's, where the dead letters lie.

    Raises:
        BillingError: they are not known to have been taken; ship them again.
        OSError: a dead letter could not be kept, so its line must not be forgotten.
    """
    lines = segment.read(max_lines=MAX_BATCH_LINES, max_bytes=MAX_BATCH_BYTES)
    events = [segments.decode_line(line) for line in lines]
    delivery = await deliver(billing, [event for event in events if event is not None])
    delivery.refused += [
        Refusal(line, "the line is damaged", False)
        for line, event in zip(lines, events, strict=True)
        if event is None
    ]
    if delivery.refused:
        # Last, so that a batch sent many times while billing is away is buried only once.
        await asyncio.to_thread(dead_letters.append, folder, delivery.refused)
        log.error(
            "dead_letters",
            reason=delivery.refused[0].reason,
            count=len(delivery.refused),
            file=dead_letters.FILE_NAME,
        )
    segment.shipped += sum(len(line) + 1 for line in lines)
    return delivery
