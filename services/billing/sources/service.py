"""Which events of each journal have arrived, and which are missing."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.sources import repository
from services.billing.sources.models import Journal
from services.billing.sources.ranges import Range, count, gaps, merge
from services.common.contracts import SourceReport

LOST_AFTER = timedelta(minutes=10)
"""A journal silent for this long is declared lost: its process died and no other took it over."""

_MAX_SEQUENCE = 2**63 - 1


class SourceRead(BaseModel):
    """What has arrived of one journal."""

    journal: str
    last: int = Field(description="The highest sequence known, reported or received.")
    received: int = Field(description="How many distinct sequences have arrived.")
    missing: list[Range] = Field(description="Ranges up to `last` that have not arrived.")
    state: Literal["open", "closed", "lost"]
    lag_seconds: float = Field(description="How long it has been incomplete; 0 if it is complete.")


class SourceList(BaseModel):
    sources: list[SourceRead]


# -- arriving events -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LockedJournals:
    """The journals of arriving events, locked, and what had arrived of them before."""

    journals: Sequence[Journal]
    ranges: Mapping[str, Sequence[Range]]
    """By journal, as far as they are near the arriving sequences."""


async def lock_journals(
    session: AsyncSession, *, arriving: Mapping[str, Set[int]], now: datetime
) -> LockedJournals:
    """Lock the journals of arriving sequences until the transaction ends.

    Journals that are missing are created.
    """
    if not arriving:
        return LockedJournals(journals=(), ranges={})
    journals = await repository.lock_journals(session, ids=arriving.keys(), now=now)
    lowest = min(min(numbers) for numbers in arriving.values())
    highest = max(max(numbers) for numbers in arriving.values())
    ranges = await repository.find_ranges_between(
        session,
        journals=arriving.keys(),
        first=lowest - 1,
        last=min(highest + 1, _MAX_SEQUENCE),
    )
    return LockedJournals(journals, ranges)


async def mark_received(
    session: AsyncSession,
    locked: LockedJournals,
    *,
    arriving: Mapping[str, Set[int]],
    now: datetime,
) -> None:
    """Mark sequences as received, whether or not their events are accepted."""
    gone: list[tuple[str, int]] = []
    new: list[tuple[str, Range]] = []
    for journal in locked.journals:
        before = locked.ranges.get(journal.id, ())
        after = merge([*before, *((number, number) for number in arriving[journal.id])])
        gone += [(journal.id, first) for first, _ in sorted(set(before) - set(after))]
        new += [(journal.id, run) for run in after if run not in before]
        journal.received += count(after) - count(before)
        journal.highest = max(journal.highest, after[-1][1])
        _record_heartbeat(journal, now=now)
    await repository.replace_ranges(session, gone=gone, new=new)


# -- heartbeats ----------------------------------------------------------------------------------


async def record_report(
    session: AsyncSession, *, journal_id: str, report: SourceReport, now: datetime
) -> bool:
    """Record a journal's report; return whether it is closed and all of it has arrived.

    An older report that arrives late changes nothing.
    """
    (journal,) = await repository.lock_journals(session, ids=[journal_id], now=now)
    journal.reported = max(journal.reported, report.last)
    journal.closed = journal.closed or report.closed
    _record_heartbeat(journal, now=now)
    return is_finished(journal)


async def find_stale(session: AsyncSession, *, journals: Set[str], since: datetime) -> set[str]:
    """Return those of some journals without a heartbeat since a moment, including unknown ones."""
    return set(journals) - await repository.find_heard_since(session, ids=journals, moment=since)


async def record_heartbeat(session: AsyncSession, *, journals: Set[str], now: datetime) -> None:
    """Record a heartbeat of process runs, some of them perhaps the first."""
    for journal in await repository.lock_journals(session, ids=journals, now=now):
        _record_heartbeat(journal, now=now)


def _record_heartbeat(journal: Journal, *, now: datetime) -> None:
    journal.heard_at = max(journal.heard_at, now)
    journal.lost = False
    if is_complete(journal):
        journal.complete_at = journal.heard_at


def _last(journal: Journal) -> int:
    return max(journal.reported, journal.highest)


# -- ended process runs --------------------------------------------------------------------------


def is_complete(journal: Journal) -> bool:
    """Return whether all known events of a journal have arrived."""
    return journal.received == _last(journal)


def is_finished(journal: Journal) -> bool:
    """Return whether a journal is closed and all of it has arrived."""
    return journal.closed and is_complete(journal)


async def lock_ended(
    session: AsyncSession, *, journal_id: str, silent_since: datetime | None
) -> Journal | None:
    """Lock a journal that expects no more events; return None if it expects some.

    Args:
        silent_since: a journal without a heartbeat after this moment is given up; None gives up no
            journal.
    """
    journal = await repository.lock_journal(session, journal=journal_id)
    if journal is None:
        return None
    silent = silent_since is not None and journal.heard_at <= silent_since
    return journal if silent or is_finished(journal) else None


async def lock_lost(
    session: AsyncSession, *, journal_id: str, silent_since: datetime
) -> Journal | None:
    """Lock a lost journal; return None if there was a heartbeat after `silent_since`."""
    journal = await repository.lock_journal(session, journal=journal_id)
    if journal is None or not journal.lost or journal.heard_at > silent_since:
        return None
    return journal


def mark_lost(journal: Journal) -> None:
    """Mark a journal as lost until its next heartbeat."""
    journal.lost = True


def mark_purged(journal: Journal) -> None:
    """Mark a lost journal as one that gets no more credit, even if its process comes back."""
    journal.purged = True


async def find_closed(session: AsyncSession, *, journals: Set[str]) -> set[str]:
    """Return those of some journals that get no more credit: those closed or purged."""
    return await repository.find_closed(session, ids=journals)


# -- listing -------------------------------------------------------------------------------------


async def list_sources(session: AsyncSession, *, now: datetime) -> list[SourceRead]:
    """Return every journal, the one heard from last first."""
    journals = await repository.list_journals(session)
    incomplete = [journal.id for journal in journals if not is_complete(journal)]
    ranges = await repository.list_ranges(session, journals=incomplete)
    return [_read(journal, ranges.get(journal.id, []), now=now) for journal in journals]


def _read(journal: Journal, ranges: list[Range], *, now: datetime) -> SourceRead:
    silent = now - journal.heard_at >= LOST_AFTER
    state: Literal["open", "closed", "lost"] = (
        "closed" if journal.closed else "lost" if silent else "open"
    )
    # What an open journal has not sent is lag; what an ended one has not sent is a gap.
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
