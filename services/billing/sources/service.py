"""What of each journal has arrived, and so what is missing."""

from collections.abc import Mapping, Set
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.models import Journal
from services.billing.sources import repository
from services.billing.sources.ranges import Range, count, gaps, merge
from services.common.contracts import SourceReport

LOST_AFTER = timedelta(minutes=10)
"""A journal silent for so long is given up: its process is dead and its disk has not turned up."""

_MAX_SEQUENCE = 2**63 - 1


class SourceRead(BaseModel):
    """How much of one journal has arrived."""

    journal: str
    last: int = Field(description="The highest sequence known, reported or received.")
    received: int = Field(description="How many distinct sequences arrived.")
    missing: list[Range] = Field(description="Runs below `last` that have not arrived.")
    state: Literal["open", "closed", "lost"]
    lag_seconds: float = Field(description="How long it has been incomplete; 0 when it is not.")


class SourceList(BaseModel):
    sources: list[SourceRead]


async def mark(
    session: AsyncSession, *, arrived: Mapping[str, Set[int]], now: datetime
) -> dict[str, list[Range]]:
    """Note that numbers of journals arrived, whatever became of their events.

    Holds the journals until the transaction ends. Answers what had arrived of them before, as far
    as it lies near these numbers.
    """
    if not arrived:
        return {}
    journals = await repository.lock_journals(session, ids=arrived.keys(), now=now)
    lowest = min(min(numbers) for numbers in arrived.values())
    highest = max(max(numbers) for numbers in arrived.values())
    stored = await repository.find_ranges_between(
        session,
        journals=arrived.keys(),
        first=lowest - 1,
        last=min(highest + 1, _MAX_SEQUENCE),
    )
    gone: list[tuple[str, int]] = []
    new: list[tuple[str, Range]] = []
    for journal in journals:
        before = stored.get(journal.id, [])
        after = merge([*before, *((number, number) for number in arrived[journal.id])])
        gone += [(journal.id, first) for first, _ in sorted(set(before) - set(after))]
        new += [(journal.id, run) for run in after if run not in before]
        journal.received += count(after) - count(before)
        journal.highest = max(journal.highest, after[-1][1])
        _heard(journal, now=now)
    await repository.replace_ranges(session, gone=gone, new=new)
    return stored


async def report(
    session: AsyncSession, *, journal_id: str, said: SourceReport, now: datetime
) -> bool:
    """Note how far a journal says it is; return whether it is closed and all of it has arrived.

    An older report that comes late changes nothing.
    """
    (journal,) = await repository.lock_journals(session, ids=[journal_id], now=now)
    journal.reported = max(journal.reported, said.last)
    journal.closed = journal.closed or said.closed
    _heard(journal, now=now)
    return journal.closed and is_complete(journal)


async def find_silent(session: AsyncSession, *, journals: Set[str], since: datetime) -> set[str]:
    """Those of some journals that nothing was heard of since a moment, unknown ones among them."""
    return set(journals) - await repository.find_heard_since(session, ids=journals, moment=since)


async def hear(session: AsyncSession, *, journals: Set[str], now: datetime) -> None:
    """Note that processes gave a sign of life, the first one perhaps."""
    for journal in await repository.lock_journals(session, ids=journals, now=now):
        _heard(journal, now=now)


def _heard(journal: Journal, *, now: datetime) -> None:
    journal.heard_at = max(journal.heard_at, now)
    journal.lost = False
    if is_complete(journal):
        journal.complete_at = journal.heard_at


def is_complete(journal: Journal) -> bool:
    """Whether everything known of a journal has arrived."""
    return journal.received == _last(journal)


def _last(journal: Journal) -> int:
    return max(journal.reported, journal.highest)


async def list_sources(session: AsyncSession, *, now: datetime) -> list[SourceRead]:
    """Every journal, the one heard last first."""
    journals = await repository.list_journals(session)
    incomplete = [journal.id for journal in journals if not is_complete(journal)]
    ranges = await repository.list_ranges(session, journals=incomplete)
    return [_read(journal, ranges.get(journal.id, []), now=now) for journal in journals]


def _read(journal: Journal, ranges: list[Range], *, now: datetime) -> SourceRead:
    silent = now - journal.heard_at >= LOST_AFTER
    state: Literal["open", "closed", "lost"] = (
        "closed" if journal.closed else "lost" if silent else "open"
    )
    # What an open journal has not sent yet is on its way; of an ended one it is a gap.
    expected = journal.highest if state == "open" else _last(journal)
    complete = is_complete(journal)
    return SourceRead(
        journal=journal.id,
        last=_last(journal),
        received=journal.received,
        missing=[] if complete else gaps(ranges, last=expected),
        state=state,
        lag_seconds=0.0 if complete else (now - journal.complete_at).total_seconds(),
    )
