"""SQL that selects usage events to take back: in the order of an index, a bounded part at a time.

Nothing here needs a lock. Whether an event was taken back before is decided under the lock of its
account, by `find_reversed`.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.archives.reading import Archives, Wanted
from services.billing.corrections.models import EventReversal, RecalledArrival
from services.billing.event_places import EventPlace
from services.billing.indexes import in_account_order
from services.billing.models import EventKey, Plan, Price, UsageEvent
from services.common.db.database import Database

STRETCH_EVENTS = 10_000
"""Events of an account that one statement reads at most, whether they match or not."""
_IDS_AT_ONCE = 500


class Charged(NamedTuple):
    """A usage event that can be taken back."""

    time: datetime
    id: str
    source: str
    account: str
    period: str
    model: str
    price_id: str
    is_prepaid: bool
    currency: str
    amount: int

    @property
    def place(self) -> EventPlace:
        return EventPlace(self.time, self.id, self.source)


class Window(NamedTuple):
    """An account's events of a half-open range of time, perhaps of one model or version."""

    account: str
    model: str | None = None
    version: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def list_next(
    session: AsyncSession, window: Window, *, after: EventPlace | None, limit: int
) -> tuple[list[Charged], EventPlace | None]:
    """Return the next events of a window, and where to continue; None if there are no more.

    It reads at most `STRETCH_EVENTS` events of the account, so it may return none of them and yet
    a place to continue.

    Args:
        after: where an earlier call ended.
        limit: how many events to return at most.
    """
    end = await _end_of_stretch(session, window, after=after)
    wanted = _within(select(*_COLUMNS), window, after=after, through=end)
    if window.model is not None:
        wanted = wanted.where(UsageEvent.model == window.model)
    if window.version is not None:
        wanted = wanted.where(UsageEvent.version == window.version)
    events = await _charged(session, wanted.order_by(*_ORDER).limit(limit))
    return events, events[-1].place if len(events) == limit else end


async def _end_of_stretch(
    session: AsyncSession, window: Window, *, after: EventPlace | None
) -> EventPlace | None:
    """Return the last position of a full stretch; the index alone has it."""
    found = _within(select(*_ORDER), window, after=after).order_by(*_ORDER)
    row = (await session.execute(found.offset(STRETCH_EVENTS - 1).limit(1))).first()
    return None if row is None else EventPlace(*row)


def _within(
    found: Select[Any],
    window: Window,
    *,
    after: EventPlace | None,
    through: EventPlace | None = None,
) -> Select[Any]:
    event = UsageEvent
    found = in_account_order(found).where(event.account == window.account)
    if window.since is not None:
        found = found.where(event.time >= window.since)
    if window.until is not None:
        found = found.where(event.time < window.until)
    if after is not None:
        found = found.where(
            event.time >= after.time,
            or_(
                event.time > after.time,
                event.id > after.id,
                and_(event.id == after.id, event.source > after.source),
            ),
        )
    if through is not None:
        found = found.where(
            event.time <= through.time,
            or_(
                event.time < through.time,
                event.id < through.id,
                and_(event.id == through.id, event.source <= through.source),
            ),
        )
    return found


async def list_next_anywhere(
    database: Database, archives: Archives, window: Window, *, after: EventPlace | None, limit: int
) -> tuple[list[Charged], EventPlace | None]:
    """Return like `list_next`, including events of archived months."""
    async with database.snapshot() as session:
        stored, end = await list_next(session, window, after=after, limit=limit)
    wanted = Wanted(
        account=window.account,
        model=window.model,
        version=window.version,
        since=window.since,
        until=window.until,
        after=after,
        through=end,
    )
    archived = await archives.list_first(database, wanted, limit=limit)
    if not archived:
        return stored, end
    async with database.snapshot() as session:
        events = sorted({*stored, *await _with_plans(session, archived)})[:limit]
    return events, events[-1].place if len(events) == limit else end


async def list_named(
    database: Database, archives: Archives, *, ids: Collection[str]
) -> list[Charged]:
    """Return the events with these ids, of any account."""
    events: list[Charged] = []
    for some in _chunks(ids):
        async with database.snapshot() as session:
            named = (
                select(*_COLUMNS)
                .select_from(EventKey)
                .join(UsageEvent, _same(UsageEvent, EventKey))
                .where(EventKey.id.in_(some))
            )
            stored = await _charged(session, named)
            known = select(EventKey.time, EventKey.id, EventKey.source).where(EventKey.id.in_(some))
            places = [EventPlace(*row) for row in await session.execute(known)]
        events += stored
        missing = sorted(set(places) - {event.place for event in stored})
        if missing:
            wanted = Wanted(
                ids=[place.id for place in missing], since=missing[0].time, through=missing[-1]
            )
            archived = await archives.list_first(database, wanted, limit=len(missing))
            async with database.snapshot() as session:
                events += await _with_plans(session, archived)
    return sorted(set(events))


async def list_arrived(
    session: AsyncSession, *, account: str, recall_id: str, limit: int
) -> list[Charged]:
    """Return events of an account that arrived after their version was recalled."""
    arrived = (
        select(*_COLUMNS)
        .select_from(RecalledArrival)
        .join(UsageEvent, _same(UsageEvent, RecalledArrival))
        .where(RecalledArrival.account == account, RecalledArrival.recall_id == recall_id)
        .limit(limit)
    )
    return await _charged(session, arrived)


async def find_reversed(session: AsyncSession, events: Sequence[Charged]) -> set[EventPlace]:
    """Return which of some events were taken back before; their accounts are locked.

    The events' keys are joined, because the key of a reversal begins with the time.
    """
    found: set[EventPlace] = set()
    for ids in _chunks({event.id for event in events}):
        reversals = await session.execute(
            select(EventKey.time, EventKey.id, EventKey.source, EventReversal.id)
            .outerjoin(EventReversal, _same(EventReversal, EventKey))
            .where(EventKey.id.in_(ids))
        )
        found |= {
            EventPlace(time, event_id, source)
            for time, event_id, source, reversal in reversals
            if reversal is not None
        }
    return found


_ORDER: tuple[Any, ...] = (UsageEvent.time, UsageEvent.id, UsageEvent.source)
_COLUMNS: tuple[Any, ...] = (
    *_ORDER,
    UsageEvent.account,
    UsageEvent.period,
    UsageEvent.model,
    UsageEvent.price_id,
    UsageEvent.amount_high,
    UsageEvent.amount_low.label("amount_low"),
)


async def _charged(session: AsyncSession, wanted: Select[Any]) -> list[Charged]:
    """Return events with the terms of their plans, which are few."""
    return await _with_plans(session, (await session.execute(wanted)).all())


async def _with_plans(session: AsyncSession, events: Sequence[Any]) -> list[Charged]:
    plans = await _plans(session, price_ids={event.price_id for event in events})
    return [
        Charged(
            event.time,
            event.id,
            event.source,
            event.account,
            event.period,
            event.model,
            event.price_id,
            *plans[event.price_id],
            amounts.join(event.amount_high, event.amount_low),
        )
        for event in events
    ]


async def _plans(
    session: AsyncSession, *, price_ids: Collection[str]
) -> dict[str, tuple[bool, str]]:
    """Return whether prices are prepaid, and their currencies."""
    if not price_ids:
        return {}
    found = await session.execute(
        select(Price.id, Plan.billing, Plan.currency)
        .join(Plan, Plan.id == Price.plan_id)
        .where(Price.id.in_(sorted(price_ids)))
    )
    return {price_id: (billing == "prepaid", currency) for price_id, billing, currency in found}


def _same(one: type[UsageEvent | EventReversal], other: type[EventKey | RecalledArrival]) -> Any:
    return and_(one.time == other.time, one.id == other.id, one.source == other.source)


def _chunks(ids: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _IDS_AT_ONCE):
        yield ordered[start : start + _IDS_AT_ONCE]
