"""All SQL about usage: sums by hour and by month, and usage events."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import (
    Select,
    and_,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.amounts import exact, labelled
from services.billing.archives.models import is_not_archived
from services.billing.bulk_insert import ColumnInsert, upsert, upserting
from services.billing.event_places import EventPlace
from services.billing.indexes import in_account_order
from services.billing.models import (
    Base,
    EventKey,
    Plan,
    Price,
    UsageBreakdown,
    UsageEvent,
    UsageHour,
    UsageMonth,
    UsageVersion,
)
from services.billing.usage.columns import exact_sums, sums_of
from services.billing.usage.sums import (
    HOUR,
    NO_USAGE,
    BreakdownGroup,
    BreakdownKey,
    HourKey,
    MonthKey,
    Sums,
    VersionKey,
    hour_of,
    tag_of,
)

_COUNTS = ("requests", "rows")
_ACCOUNTS_AT_ONCE = 100
"""With their tags and hours, servers can plan a list of so many."""


# -- adding --------------------------------------------------------------------------------------


async def lock_months(session: AsyncSession, *, keys: Collection[MonthKey]) -> dict[MonthKey, Sums]:
    """Lock the sums of months until the transaction ends; leave out months without usage."""
    month = UsageMonth
    key_columns = (month.account, month.period, month.price_id)
    found = await session.execute(
        select(*key_columns, month.requests, month.rows, month.amount_high, month.amount_low)
        .where(  # may match more than the keys, but a list of triples is slow
            month.account.in_(sorted({key.account for key in keys})),
            month.period.in_(sorted({key.period for key in keys})),
            month.price_id.in_(sorted({key.price_id for key in keys})),
        )
        .order_by(*key_columns)
        .with_for_update()
    )
    return {
        MonthKey(account, period, price_id): Sums(requests, rows, amounts.join(*amount))
        for account, period, price_id, requests, rows, *amount in found
    }


async def add_months(session: AsyncSession, *, keys: Collection[MonthKey]) -> None:
    """Insert the empty sums of new months.

    Raises:
        IntegrityError: another transaction has just inserted one of them.
    """
    empty = {"requests": 0, "rows": 0, "amount_low": 0}
    await session.execute(insert(UsageMonth), [key._asdict() | empty for key in sorted(keys)])


def sum_inserts(
    *,
    months: Mapping[MonthKey, Sums],
    hours: Mapping[HourKey, Sums],
    versions: Mapping[VersionKey, Sums],
    dialect: str,
) -> Iterator[ColumnInsert]:
    """Yield INSERTs that add to the sums of months and hours; see `bulk_insert.upserting`."""
    added: list[tuple[type[Base], Mapping[Any, Sums]]] = [
        (UsageMonth, months),
        (UsageHour, hours),
        (UsageVersion, versions),
    ]
    for model, sums in added:
        if sums:
            rows = _rows(sums)
            yield upserting(model, rows, dialect=dialect, add=_COUNTS, add_amounts=["amount"])


async def add_to_breakdowns(session: AsyncSession, *, sums: Mapping[BreakdownKey, Sums]) -> None:
    """Add to the sums of hours by a dimension."""
    await upsert(session, UsageBreakdown, _rows(sums), add=_COUNTS, add_amounts=["amount"])


async def count_values(
    session: AsyncSession, *, groups: Collection[BreakdownGroup]
) -> dict[BreakdownGroup, int]:
    """Return how many values the sums of some hours have; hours without any are left out."""
    counts: dict[BreakdownGroup, int] = {}
    kept = UsageBreakdown
    accounts = sorted({group.account for group in groups})
    for start in range(0, len(accounts), _ACCOUNTS_AT_ONCE):
        some = accounts[start : start + _ACCOUNTS_AT_ONCE]
        of_some = {group for group in groups if group.account in some}
        found = await session.execute(
            select(kept.account, kept.dimension, kept.hour, func.count())
            .where(  # may match more than the groups, but a list of triples is slow
                kept.account.in_(some),
                kept.dimension.in_(sorted({group.dimension for group in of_some})),
                kept.hour.in_(sorted({group.hour for group in of_some})),
            )
            .group_by(kept.account, kept.dimension, kept.hour)
        )
        counts |= {
            BreakdownGroup(account, dimension, hour): count
            for account, dimension, hour, count in found
        }
    return counts


async def find_values(
    session: AsyncSession, *, keys: Collection[BreakdownKey]
) -> set[BreakdownKey]:
    """Return those of some values of hours that have sums."""
    found: set[BreakdownKey] = set()
    values: dict[BreakdownGroup, list[str]] = {}
    for key in keys:
        values.setdefault(key.group, []).append(key.value)
    kept = UsageBreakdown
    for group, wanted in values.items():
        rows = await session.scalars(
            select(kept.value).where(
                kept.account == group.account,
                kept.dimension == group.dimension,
                kept.hour == group.hour,
                kept.value.in_(sorted(wanted)),
            )
        )
        found |= {BreakdownKey(*group, value) for value in rows}
    return found


def _rows(sums: Mapping[Any, Sums]) -> list[dict[str, Any]]:
    return [
        dict(
            zip(key._fields, key, strict=True),
            requests=counted.requests,
            rows=counted.rows,
            **amounts.columns("amount", counted.amount),
        )
        for key, counted in sums.items()
    ]


async def count_month(
    session: AsyncSession, *, accounts: Collection[str], period: str
) -> dict[tuple[str, str], int]:
    """Return how many requests accounts made in a month, by account and price."""
    rows = await session.execute(
        select(UsageMonth.account, UsageMonth.price_id, UsageMonth.requests).where(
            UsageMonth.account.in_(sorted(accounts)), UsageMonth.period == period
        )
    )
    return {(account, price_id): requests for account, price_id, requests in rows}


async def sum_prepaid(session: AsyncSession, *, account: str, since: datetime) -> int:
    """Return what an account was charged for prepaid usage from the hour of a moment on."""
    amount = exact(UsageHour.amount_low, high=UsageHour.amount_high).total().named("amount")
    found = await session.execute(
        select(func.count().label("hours"), *amount)
        .join(Price, Price.id == UsageHour.price_id)
        .join(Plan, Plan.id == Price.plan_id)
        .where(
            UsageHour.account == account,
            UsageHour.hour >= hour_of(since),
            Plan.billing == "prepaid",
        )
    )
    row = found.one()
    return labelled(row, "amount").value() if row.hours else 0


# -- reading -------------------------------------------------------------------------------------


async def break_down(
    session: AsyncSession,
    *,
    account: str,
    dimension: str,
    since: datetime,
    until: datetime,
    limit: int,
) -> tuple[Sums, dict[str, Sums]]:
    """Return what an account used within a window, in total and by the values of a dimension.

    Like `parts.list_parts`, but the values differ from account to account.

    Args:
        limit: how many values to return at most.
    """
    first, last = hour_of(since), hour_of(until)
    total = (
        select(literal("total").label("kind"), null().label("value"), *exact_sums(UsageHour))
        .where(UsageHour.account == account, UsageHour.hour >= first, UsageHour.hour <= last)
        .group_by(UsageHour.account)
    )
    of_dimension = UsageBreakdown.dimension == dimension
    kept = [_values(UsageBreakdown, UsageBreakdown.value, account, first, last, of_dimension)]
    if dimension == "version":
        kept.append(_values(UsageVersion, UsageVersion.version, account, first, last))
    values = [select(each.limit(limit).subquery()) for each in kept]
    within = {"version": UsageEvent.version, "api_key": UsageEvent.api_key}
    given = within.get(dimension, UsageEvent.tags)
    outside = (
        select(literal("outside").label("kind"), given.label("value"), *exact_sums(UsageEvent))
        .where(
            UsageEvent.account == account,
            is_not_archived(),
            or_(
                and_(UsageEvent.time >= first, UsageEvent.time < since),
                and_(UsageEvent.time >= until, UsageEvent.time < last + HOUR),
            ),
        )
        .group_by(given)
    )
    whole, found = NO_USAGE, dict[str, Sums]()
    for row in await session.execute(union_all(total, *values, outside)):
        sums = sums_of(row)
        if row.kind == "total":
            whole = whole.plus(*sums)
        elif row.kind == "value":
            found[row.value] = found.get(row.value, NO_USAGE).plus(*sums)
        else:
            whole = whole.minus(sums)
            value = row.value
            if value is not None and dimension not in within:
                value = orjson.loads(value).get(tag_of(dimension))
            if value is not None:
                found[value] = found.get(value, NO_USAGE).minus(sums)
    return whole, found


def _values(
    kept: type[UsageBreakdown | UsageVersion],
    value: Any,
    account: str,
    first: datetime,
    last: datetime,
    *only: Any,
) -> Select[Any]:
    """Select the sums of an account's hours by value, from one of the tables that have them."""
    return (
        select(literal("value").label("kind"), value.label("value"), *exact_sums(kept))
        .where(kept.account == account, kept.hour >= first, kept.hour <= last, *only)
        .group_by(value)
    )


async def list_events(
    session: AsyncSession,
    *,
    account: str,
    since: datetime | None,
    until: datetime | None,
    after: EventPlace | None,
    limit: int,
) -> Sequence[UsageEvent]:
    """Return an account's usage events, newest first, starting after a page."""
    events = in_account_order(select(UsageEvent)).where(UsageEvent.account == account)
    if since is not None:
        events = events.where(UsageEvent.time >= since)
    if until is not None:
        events = events.where(UsageEvent.time < until)
    if after is not None:
        events = events.where(
            UsageEvent.time <= after.time,
            or_(
                UsageEvent.time < after.time,
                UsageEvent.id < after.id,
                and_(UsageEvent.id == after.id, UsageEvent.source < after.source),
            ),
        )
    newest_first = (UsageEvent.time.desc(), UsageEvent.id.desc(), UsageEvent.source.desc())
    found = await session.scalars(events.order_by(*newest_first).limit(limit))
    return found.all()


async def find_event(
    session: AsyncSession, *, account: str | None, event_id: str
) -> UsageEvent | None:
    """Return a usage event by its id, of one account or of any."""
    same_event = and_(
        UsageEvent.time == EventKey.time,
        UsageEvent.id == EventKey.id,
        UsageEvent.source == EventKey.source,
    )
    found = select(UsageEvent).join(EventKey, same_event).where(EventKey.id == event_id)
    if account is not None:
        found = found.where(UsageEvent.account == account)
    event: UsageEvent | None = await session.scalar(found.order_by(EventKey.source).limit(1))
    return event


async def find_places(session: AsyncSession, *, event_id: str) -> list[EventPlace]:
    """Return where events with an id are, in the database or in an archive."""
    found = await session.execute(
        select(EventKey.time, EventKey.id, EventKey.source)
        .where(EventKey.id == event_id)
        .order_by(EventKey.source)
    )
    return [EventPlace(*row) for row in found]
