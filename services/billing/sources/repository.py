"""All SQL about journals and their received sequences."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import Row, delete, insert, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.bulk_insert import upsert
from services.billing.sources.models import Journal, JournalRange
from services.billing.sources.ranges import Range


async def lock_journals(
    session: AsyncSession, *, ids: Collection[str], now: datetime
) -> list[Journal]:
    """Lock journals until the transaction ends, creating those that are missing."""
    wanted = select(Journal).where(Journal.id.in_(sorted(ids))).order_by(Journal.id)
    found = list(await session.scalars(wanted.with_for_update()))
    if len(found) == len(ids):
        return found
    new = {
        "reported": 0,
        "highest": 0,
        "received": 0,
        "closed": False,
        "lost": False,
        "purged": False,
        "heard_at": now,
        "complete_at": now,
    }
    missing = set(ids) - {journal.id for journal in found}
    await upsert(session, Journal, [{"id": journal, **new} for journal in missing])
    return list(await session.scalars(wanted.with_for_update()))


async def lock_journal(session: AsyncSession, *, journal: str) -> Journal | None:
    """Lock a journal until the transaction ends, so that none of its events arrives meanwhile."""
    return await session.get(Journal, journal, with_for_update=True)


async def find_closed(session: AsyncSession, *, ids: Collection[str]) -> set[str]:
    """Return those of some journals that are closed or purged."""
    closed = or_(Journal.closed, Journal.purged)
    return set(await session.scalars(select(Journal.id).where(Journal.id.in_(sorted(ids)), closed)))


async def find_heard_since(
    session: AsyncSession, *, ids: Collection[str], moment: datetime
) -> set[str]:
    """Return those of some journals that were heard from after a moment."""
    heard = select(Journal.id).where(Journal.id.in_(sorted(ids)), Journal.heard_at > moment)
    return set(await session.scalars(heard))


async def find_ranges_between(
    session: AsyncSession, *, journals: Collection[str], first: int, last: int
) -> dict[str, list[Range]]:
    """Return the ranges that overlap `first` to `last`, by journal."""
    return _by_journal(
        await session.execute(
            select(JournalRange.journal, JournalRange.first, JournalRange.last).where(
                JournalRange.journal.in_(sorted(journals)),
                JournalRange.last >= first,
                JournalRange.first <= last,
            )
        )
    )


async def replace_ranges(
    session: AsyncSession,
    *,
    gone: Sequence[tuple[str, int]],
    new: Sequence[tuple[str, Range]],
) -> None:
    """Delete ranges by journal and first number, then insert others."""
    if gone:
        key = tuple_(JournalRange.journal, JournalRange.first)
        await session.execute(delete(JournalRange).where(key.in_(gone)))
    if new:
        await session.execute(
            insert(JournalRange),
            [{"journal": journal, "first": first, "last": last} for journal, (first, last) in new],
        )


async def list_journals(session: AsyncSession) -> list[Journal]:
    """Return every journal, the one heard from last first."""
    return list(
        await session.scalars(select(Journal).order_by(Journal.heard_at.desc(), Journal.id))
    )


async def list_ranges(
    session: AsyncSession, *, journals: Collection[str]
) -> dict[str, list[Range]]:
    """Return all ranges of some journals, by journal."""
    return _by_journal(
        await session.execute(
            select(JournalRange.journal, JournalRange.first, JournalRange.last).where(
                JournalRange.journal.in_(sorted(journals))
            )
        )
    )


def _by_journal(rows: Iterable[Row[str, int, int]]) -> dict[str, list[Range]]:
    ranges: dict[str, list[Range]] = {}
    for journal, first, last in rows:
        ranges.setdefault(journal, []).append((first, last))
    return ranges
