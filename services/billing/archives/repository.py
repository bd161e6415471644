"""All SQL about archives: what they are made of, what they have, and what they replace."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from functools import reduce
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from services.billing.amounts import exact, labelled
from services.billing.archives.models import Archive, ArchivePart
from services.billing.bulk_insert import table_of
from services.billing.corrections.models import RecalledArrival
from services.billing.invoices.models import Invoice, InvoiceLine, LateEvent
from services.billing.models import Period, UsageEvent, UsageMonth
from services.billing.periods import next_period, start_of

_SEPARATOR = "\t"
_ORDER = (UsageEvent.time, UsageEvent.id, UsageEvent.source)

# -- months --------------------------------------------------------------------------------------


async def find_period(session: AsyncSession, *, period: str) -> Period | None:
    """Return a month, if anything happened in it."""
    return await session.get(Period, period)


async def find_archive(session: AsyncSession, *, period: str) -> Archive | None:
    """Return the archive of a month, once there is one."""
    return await session.get(Archive, period)


async def list_due(session: AsyncSession, *, until: str) -> list[str]:
    """Return the invoiced months up to one that are to be archived, oldest first.

    Those whose events are being deleted come, too.
    """
    found = (
        select(Period.id)
        .outerjoin(Archive, Archive.period == Period.id)
        .where(
            Period.invoiced_at.is_not(None),
            Archive.dropped_at.is_(None),
            or_(Period.id <= until, Archive.period.is_not(None)),
        )
        .order_by(Period.id)
    )
    return list(await session.scalars(found))


async def has_pending_recalls(session: AsyncSession, *, period: str) -> bool:
    """Return whether events of a month are recalled and not taken back yet."""
    arrival, event = RecalledArrival, UsageEvent
    same = and_(event.time == arrival.time, event.id == arrival.id, event.source == arrival.source)
    found = select(arrival.id).join(event, same).where(event.period == period).limit(1)
    return await session.scalar(found) is not None


async def count_archived(session: AsyncSession) -> tuple[int, int]:
    """Return how many months are archived, and how many bytes their files have."""
    found = await session.execute(select(func.count(), func.sum(Archive.bytes)))
    months, size = found.one()
    return months, int(size or 0)


# -- files ---------------------------------------------------------------------------------------


async def add_archive(
    session: AsyncSession, *, archive: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]
) -> None:
    """Insert the archive of a month, and its files."""
    await session.execute(insert(table_of(Archive)).values(archive))
    if parts:
        await session.execute(insert(table_of(ArchivePart)), list(parts))


async def list_parts(
    session: AsyncSession | AsyncConnection,
    *,
    period: str | None = None,
    account: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[ArchivePart]:
    """Return the files that may have events from `since` through `until`.

    Args:
        period: only those of a month.
        account: only those of months that bill usage of an account.
    """
    columns = ArchivePart.__table__.columns
    found = select(*columns).order_by(ArchivePart.period, ArchivePart.part)
    if period is not None:
        found = found.where(ArchivePart.period == period)
    if account is not None:
        months = select(UsageMonth.period).where(UsageMonth.account == account)
        found = found.where(ArchivePart.period.in_(months))
    if since is not None:
        found = found.where(ArchivePart.last_time >= since)
    if until is not None:
        found = found.where(ArchivePart.first_time <= until)
    return [ArchivePart(**row) for row in (await session.execute(found)).mappings()]


# -- events --------------------------------------------------------------------------------------


class PageEnd(NamedTuple):
    """The place of the last event of a page, among those of its month."""

    account: str
    """Empty among the month's own events, which are in order of time alone."""
    time: datetime
    id: str
    source: str


async def list_own(
    session: AsyncSession, *, period: str, columns: Sequence[str], after: PageEnd | None, limit: int
) -> tuple[list[str], PageEnd | None]:
    """Return events of a month that are billed in it, each as one text, and the last one's place.

    They are in the order of the primary key.
    """
    events = select(_packed(columns), literal("").label("account"), *_ORDER).where(
        UsageEvent.time >= (start_of(period) if after is None else after.time),
        UsageEvent.time < start_of(next_period(period)),
        UsageEvent.period == period,
    )
    if after is not None:
        events = events.where(
            or_(
                UsageEvent.time > after.time,
                UsageEvent.id > after.id,
                and_(UsageEvent.id == after.id, UsageEvent.source > after.source),
            )
        )
    return await _page(session, events.order_by(*_ORDER).limit(limit))


async def list_late(
    session: AsyncSession, *, period: str, columns: Sequence[str], after: PageEnd | None, limit: int
) -> tuple[list[str], PageEnd | None]:
    """Return events of earlier months that are billed in one, in the order of their list."""
    order = (LateEvent.account, LateEvent.time, LateEvent.id, LateEvent.source)
    same = and_(
        UsageEvent.time == LateEvent.time,
        UsageEvent.id == LateEvent.id,
        UsageEvent.source == LateEvent.source,
    )
    events = (
        select(_packed(columns), *order)
        .select_from(LateEvent)
        .join(UsageEvent, same)
        .where(LateEvent.period == period)
    )
    if after is not None:
        events = events.where(tuple_(*order) > after)
    return await _page(session, events.order_by(*order).limit(limit))


async def _page(
    session: AsyncSession, events: Select[str, str, datetime, str, str]
) -> tuple[list[str], PageEnd | None]:
    found = (await session.execute(events)).all()
    return [row[0] for row in found], PageEnd(*found[-1][1:]) if found else None


def _packed(columns: Sequence[str]) -> ColumnElement[str]:
    """Return an event as one text, in which a null is empty.

    The driver takes a microsecond for every value. No column may contain the separator.
    """
    texts: list[ColumnElement[str]] = [
        func.coalesce(cast(getattr(UsageEvent, name), String(700)), "") for name in columns
    ]
    return reduce(lambda packed, text: packed.concat(literal(_SEPARATOR)).concat(text), texts)


async def stream_lines(
    connection: AsyncConnection, *, period: str
) -> AsyncIterator[tuple[tuple[str, str, str], tuple[int, int, int]]]:
    """Yield account, model and price of what a month's invoices bill, and its sums."""
    line = InvoiceLine
    found = await connection.stream(
        select(
            Invoice.account,
            line.model,
            line.price_id,
            line.requests,
            line.rows,
            *exact(line.amount_low, high=line.amount_high).named("amount"),
        )
        .join(line, line.invoice_id == Invoice.id)
        .where(Invoice.period == period, line.kind == "usage")
    )
    async for row in found:
        sums = (int(row.requests), int(row.rows), labelled(row, "amount").value())
        yield (row.account, row.model, row.price_id), sums


async def delete_own(
    session: AsyncSession, *, period: str, since: datetime, limit: int
) -> tuple[int, datetime | None]:
    """Delete the oldest events since a moment of a month that are billed in it.

    Returns:
        How many those were, about as many as the limit, and the moment to go on from; None if they
        were the last.
    """
    until = start_of(next_period(period))
    mine = and_(UsageEvent.time >= since, UsageEvent.time < until, UsageEvent.period == period)
    times = select(UsageEvent.time).where(mine).order_by(UsageEvent.time)
    end: datetime | None = await session.scalar(times.offset(limit - 1).limit(1))
    if end is not None:
        mine = and_(UsageEvent.time >= since, UsageEvent.time <= end, UsageEvent.period == period)
    return await _delete_events(session, mine), end


async def delete_late(session: AsyncSession, *, period: str, limit: int) -> int:
    """Delete events of earlier months that are billed in one, and their list."""
    listed = select(LateEvent.time).where(LateEvent.period == period).distinct().limit(limit)
    times = list(await session.scalars(listed))
    if not times:
        return 0
    count = await _delete_events(
        session, and_(UsageEvent.time.in_(times), UsageEvent.period == period)
    )
    await session.execute(
        delete(LateEvent)
        .where(LateEvent.period == period, LateEvent.time.in_(times))
        .execution_options(synchronize_session=False)
    )
    return count


async def _delete_events(session: AsyncSession, which: ColumnElement[bool]) -> int:
    done: Any = await session.execute(
        delete(UsageEvent).where(which).execution_options(synchronize_session=False)
    )
    return int(done.rowcount)


async def mark_dropped(session: AsyncSession, *, period: str, now: datetime) -> None:
    """Record that no event of an archived month is in the database any more."""
    done = update(Archive).where(Archive.period == period, Archive.dropped_at.is_(None))
    await session.execute(done.values(dropped_at=now))
