"""SQL that reads the events a month bills, for exports: a page at a time, in the order of an index.

The database packs each event into one text, because the driver takes a microsecond for every value.
"""

from functools import reduce
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, String, and_, cast, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.event_places import EventPlace
from services.billing.indexes import in_account_order
from services.billing.invoices.models import LateEvent
from services.billing.models import UsageEvent
from services.billing.periods import next_period, start_of

_SEPARATOR = "\t"


class BilledEvent(NamedTuple):
    """A usage event as it is exported: all of it is text, and empty where there is nothing.

    `time` is in RFC 3339, `tags` a JSON object, and the amount in two parts, as stored.
    """

    time: str
    id: str
    source: str
    model: str
    version: str
    rows: str
    client_id: str
    api_key: str
    tags: str
    amount_high: str
    amount_low: str
    price_id: str


_REST = BilledEvent._fields[1:]


async def list_billed(
    session: AsyncSession,
    *,
    account: str,
    period: str,
    after: EventPlace | None,
    limit: int,
) -> list[BilledEvent]:
    """Return an account's events of a month that are billed in it, oldest first.

    Args:
        after: the end of the page before.
    """
    events = in_account_order(select(_packed_event())).where(
        UsageEvent.account == account,
        UsageEvent.time >= (start_of(period) if after is None else after.time),
        UsageEvent.time < start_of(next_period(period)),
        UsageEvent.period == period,
    )
    return await _billed(session, events, by=UsageEvent, after=after, limit=limit)


async def list_late(
    session: AsyncSession,
    *,
    account: str,
    period: str,
    after: EventPlace | None,
    limit: int,
) -> list[BilledEvent]:
    """Return an account's events of other months that are billed in this one, oldest first."""
    same_event = and_(
        UsageEvent.time == LateEvent.time,
        UsageEvent.id == LateEvent.id,
        UsageEvent.source == LateEvent.source,
    )
    events = (
        select(_packed_event())
        .select_from(LateEvent)
        .join(UsageEvent, same_event)
        .where(LateEvent.period == period, LateEvent.account == account)
    )
    if after is not None:
        events = events.where(LateEvent.time >= after.time)
    return await _billed(session, events, by=LateEvent, after=after, limit=limit)


async def _billed(
    session: AsyncSession,
    events: Select[str],
    *,
    by: type[UsageEvent | LateEvent],
    after: EventPlace | None,
    limit: int,
) -> list[BilledEvent]:
    """Return a page of events in the order of the index of `by`."""
    if after is not None:
        events = events.where(
            or_(
                by.time > after.time,
                by.id > after.id,
                and_(by.id == after.id, by.source > after.source),
            )
        )
    found = await session.scalars(events.order_by(by.time, by.id, by.source).limit(limit))
    return [_unpack(packed) for packed in found]


def _packed_event() -> ColumnElement[str]:
    """Return an event as one text, in which a missing value is an empty text.

    No column may contain the separator.
    """
    texts: list[ColumnElement[str]] = [
        func.coalesce(cast(getattr(UsageEvent, name), String(700)), "")
        for name in BilledEvent._fields
    ]
    return reduce(lambda packed, text: packed.concat(literal(_SEPARATOR)).concat(text), texts)


def _unpack(packed: str) -> BilledEvent:
    time, *rest = packed.split(_SEPARATOR)
    return BilledEvent(f"{time.removesuffix('.000000').replace(' ', 'T')}Z", *rest)


def read_billed(event: UsageEvent) -> BilledEvent:
    """Return an event as the database would."""
    values = ["" if (value := getattr(event, name)) is None else str(value) for name in _REST]
    return BilledEvent(event.time.isoformat().replace("+00:00", "Z"), *values)
