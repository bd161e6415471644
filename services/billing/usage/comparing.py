"""Finding the hours whose stored sums may differ from the usage events, quickly.

The events are read in the order of their primary key, some hours at a time, so that the groups of
one statement fit in the database's memory. Only what differs leaves the database, and tags.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.amounts import halves, is_total
from services.billing.archives.models import is_not_archived
from services.billing.models import UsageBreakdown, UsageEvent, UsageHour, UsageVersion
from services.billing.usage.columns import exact_sums, stored_sums, sums_of
from services.billing.usage.sums import (
    HOUR,
    NO_USAGE,
    BreakdownKey,
    Sums,
    dimension_of_tag,
    hour_of,
)

EVENTS_AT_ONCE = 20_000
"""Their groups take a few megabytes of the database's memory."""
_ACCOUNTS_AT_ONCE = 500
_IS_KEY = UsageBreakdown.dimension == literal("api_key")
_IS_TAG = UsageBreakdown.dimension.like(dimension_of_tag("%"))

Stored = type[UsageHour] | type[UsageVersion] | type[UsageBreakdown]


class Kept(NamedTuple):
    """Stored sums that are compared by their primary key.

    Args:
        by: the columns that they are kept by besides account and hour, and those of events.
        where: which rows of the table these are.
    """

    table: Stored
    by: dict[str, Any]
    where: ColumnElement[bool]
    has_value: ColumnElement[bool] = true()


_PRICED = {"model": UsageEvent.model, "price_id": UsageEvent.price_id}
HOURS = Kept(UsageHour, _PRICED, true())
VERSIONS = Kept(UsageVersion, _PRICED | {"version": UsageEvent.version}, true())
API_KEYS = Kept(
    UsageBreakdown, {"value": UsageEvent.api_key}, _IS_KEY, UsageEvent.api_key.is_not(None)
)
TAGS = Kept(UsageBreakdown, {}, _IS_TAG, UsageEvent.tags.is_not(None))
"""Of each account and hour; their values are compared one by one."""


class AccountHour(NamedTuple):
    """An account's hour."""

    account: str
    hour: datetime


class Differing(NamedTuple):
    """Where stored sums may differ from the usage events.

    Args:
        hours: with events, and with some sum that differs.
        lonely: the stored sums of which some have no events, or of hours, no sums by version.
    """

    hours: set[AccountHour]
    lonely: list[Kept]


class _Window(NamedTuple):
    """Some whole hours; the last window has no end."""

    since: datetime
    until: datetime | None

    def contains(self, moment: Any) -> ColumnElement[bool]:
        """Return whether a column's moment is in it."""
        begun: ColumnElement[bool] = moment >= self.since
        return begun if self.until is None else and_(begun, moment < self.until)


async def find_differing(connection: AsyncConnection) -> Differing:
    """Return where a stored sum may differ from those of the usage events.

    The sums by version are compared with the events, and those of hours with the sums by version,
    which are fewer. The stored sums found thereby are counted: if there are more, the rest has no
    events.
    """
    hours = await _of_other_dimensions(connection)
    names = await _tags_of_accounts(connection)
    on_mysql = connection.dialect.name == "mysql"
    wrong, of_hours = await _differing(connection, _compared(_of_versions(), HOURS))
    hours |= wrong
    by_version = by_key = by_tag = 0
    async for window in _windows(connection):
        compared = _compared(_of_events(window, VERSIONS, on_mysql), VERSIONS)
        wrong, found = await _differing(connection, compared)
        by_version, hours = by_version + found, hours | wrong
        keys, tags = await _count_values(connection, window)
        if keys:
            compared = _compared(_of_events(window, API_KEYS, on_mysql), API_KEYS)
            wrong, found = await _differing(connection, compared)
            by_key, hours = by_key + found, hours | wrong
        if tags:
            wrong, found = await _by_tag(connection, window, on_mysql, names)
            by_tag, hours = by_tag + found, hours | wrong
    seen = ((HOURS, of_hours), (VERSIONS, by_version), (API_KEYS, by_key), (TAGS, by_tag))
    lonely = [kept for kept, found in seen if await _count(connection, kept) != found]
    return Differing(hours, lonely)


async def _of_other_dimensions(connection: AsyncConnection) -> set[AccountHour]:
    """Return the hours with sums by version that the version before stored among the others."""
    kept = UsageBreakdown
    found = await connection.execute(
        select(kept.account, kept.hour).distinct().where(not_(or_(_IS_KEY, _IS_TAG)))
    )
    return {AccountHour(account, hour_of(hour)) for account, hour in found}


async def _tags_of_accounts(connection: AsyncConnection) -> dict[str, set[str]]:
    """Return the dimensions of tags that each account has sums by."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    kept = UsageBreakdown
    pairs = select(kept.account, kept.dimension).group_by(kept.account, kept.dimension)
    for account, dimension in await connection.execute(pairs.having(_IS_TAG)):
        names[account].add(dimension)
    return names


async def _count(connection: AsyncConnection, kept: Kept) -> int:
    count = select(func.count()).select_from(kept.table).where(kept.where)
    return await connection.scalar(count) or 0


async def _windows(connection: AsyncConnection) -> AsyncIterator[_Window]:
    """Yield windows that cover all events, each with few of them unless one hour has more."""
    time = UsageEvent.time
    first = await connection.scalar(select(func.min(time)))
    while first is not None:
        since = hour_of(first)
        within = select(time).where(time >= since).order_by(time)
        edge = await connection.scalar(within.offset(EVENTS_AT_ONCE).limit(1))
        until = None if edge is None else max(hour_of(edge), since + HOUR)
        yield _Window(since, until)
        first = until and await connection.scalar(select(func.min(time)).where(time >= until))


async def _count_values(connection: AsyncConnection, window: _Window) -> tuple[int, int]:
    """Return how many of a window's events have an API key, and how many have tags."""
    event = UsageEvent
    counts = select(func.count(event.api_key), func.count(event.tags))
    found = await connection.execute(counts.where(window.contains(event.time), is_not_archived()))
    keys, tags = found.one()
    return keys, tags


def hour_text(moment: Any) -> Any:
    """Return the hour of a datetime as text, such as `2026-11-01 12:00:00.000000`."""
    return func.substr(cast(moment, String(26)), 1, 13) + literal(":00:00.000000")


def _hour(on_mysql: bool) -> Any:
    """Return the hour of an event in the form in which the database stores hours."""
    hour = hour_text(UsageEvent.time)
    return cast(hour, mysql.DATETIME(fsp=6)) if on_mysql else hour


def _of_events(window: _Window, kept: Kept, on_mysql: bool) -> Select[Any]:
    """Select sums of a window's events by the keys of stored ones."""
    event, hour = UsageEvent, _hour(on_mysql)
    keys = [column.label(name) for name, column in kept.by.items()]
    return (
        select(
            event.account,
            hour.label("hour"),
            *keys,
            func.count().label("requests"),
            *_totals(event.rows, event.amount_low, event.amount_high),
        )
        .where(window.contains(event.time), is_not_archived(), kept.has_value)
        .group_by(event.account, hour, *kept.by.values())
    )


def _of_versions() -> Select[Any]:
    """Select the sums of the stored sums by version, by the keys of `HOURS`."""
    stored = UsageVersion
    keys = [getattr(stored, name) for name in ("account", "hour", *HOURS.by)]
    return select(
        *keys,
        func.sum(stored.requests).label("requests"),
        *_totals(stored.rows, stored.amount_low, stored.amount_high),
    ).group_by(*keys)


def _totals(rows: Any, low: Any, high: Any) -> list[ColumnElement[Any]]:
    """Return sums that fit into 64 bits; `large` counts amounts that need more."""
    (rows_lower, rows_upper), (lower, upper) = halves(rows), halves(low)
    return [
        func.sum(rows_lower).label("rows_lower"),
        func.sum(rows_upper).label("rows_upper"),
        func.sum(lower).label("amount_lower"),
        func.sum(upper).label("amount_upper"),
        func.sum(case((high != 0, 1), else_=0)).label("large"),
    ]


def _compared(sums: Select[Any], kept: Kept) -> Subquery:
    """Select the hours of sums; whether one is stored, and may be `wrong`.

    Amounts of more than 64 bits always may.
    """
    used, stored = sums.subquery(), kept.table
    same = [getattr(stored, name) == used.c[name] for name in ("account", "hour", *kept.by)]
    is_right = and_(
        stored.requests == used.c.requests,
        is_total((used.c.rows_lower, used.c.rows_upper), stored.rows),
        is_total((used.c.amount_lower, used.c.amount_upper), stored.amount_low),
        stored.amount_high == 0,
        used.c.large == 0,
    )
    return (
        select(
            used.c.account,
            used.c.hour,
            stored.account.label("stored"),
            case((is_right, 0), else_=1).label("wrong"),  # also where none is stored
        )
        .outerjoin_from(used, stored, and_(kept.where, *same))
        .subquery()
    )


async def _differing(
    connection: AsyncConnection, compared: Subquery
) -> tuple[set[AccountHour], int]:
    """Return the hours with a sum that may be wrong, and how many sums are stored."""
    sums = select(func.sum(compared.c.wrong), func.count(compared.c.stored))
    wrong, stored = (await connection.execute(sums)).one()
    if not wrong:
        return set(), stored
    hours = select(compared.c.account, compared.c.hour).distinct()
    found = await connection.execute(hours.where(compared.c.wrong == 1))
    return {AccountHour(account, _as_hour(hour)) for account, hour in found}, stored


def _as_hour(stored: Any) -> datetime:
    """Return an hour that a statement computed; SQLite returns text."""
    hour = stored if isinstance(stored, datetime) else datetime.fromisoformat(stored)
    return hour_of(hour.replace(tzinfo=UTC))


async def _by_tag(
    connection: AsyncConnection,
    window: _Window,
    on_mysql: bool,
    names: dict[str, set[str]],
) -> tuple[set[AccountHour], int]:
    """Compare the sums of hours by tag; return the wrong hours, and how many sums are stored."""
    event = UsageEvent
    more: defaultdict[BreakdownKey, Sums] = defaultdict(lambda: NO_USAGE)
    by_hour: set[AccountHour] = set()
    parse = cache(_values)
    hour_of_event = _hour(on_mysql)
    tagged = (
        select(
            event.account,
            hour_of_event.label("hour"),
            event.tags,
            *exact_sums(event),
        )
        .where(window.contains(event.time), is_not_archived(), event.tags.is_not(None))
        .group_by(event.account, hour_of_event, event.tags)
    )
    async for row in await connection.stream(tagged):
        hour = AccountHour(row.account, _as_hour(row.hour))
        used = sums_of(row)
        by_hour.add(hour)
        for dimension, value in parse(row.tags):
            key = BreakdownKey(hour.account, dimension, hour.hour, value)
            more[key] = more[key].minus(used)
    accounts = sorted({hour.account for hour in by_hour})
    count = 0
    for start in range(0, len(accounts), _ACCOUNTS_AT_ONCE):
        some = accounts[start : start + _ACCOUNTS_AT_ONCE]
        dimensions = {name for account in some for name in names.get(account, ())}
        async for row in await connection.stream(_stored_tags(window, some, dimensions)):
            if (row.account, row.hour) in by_hour:
                count += 1
                stored = sums_of(row)
                key = BreakdownKey(row.account, row.dimension, row.hour, row.value)
                more[key] = more[key].plus(*stored)
    wrong = {AccountHour(key.account, key.hour) for key, sums in more.items() if sums != NO_USAGE}
    return wrong, count


def _values(tags: str) -> list[tuple[str, str]]:
    """Return the dimensions of an event's tags, and its value in each."""
    return [(dimension_of_tag(name), value) for name, value in orjson.loads(tags).items()]


def _stored_tags(
    window: _Window, accounts: Collection[str], dimensions: Collection[str]
) -> Select[Any]:
    kept = UsageBreakdown
    return select(
        kept.account,
        kept.dimension,
        kept.hour,
        kept.value,
        *stored_sums(kept),
    ).where(
        kept.account.in_(accounts),
        kept.dimension.in_(sorted(dimensions)),
        window.contains(kept.hour),
    )


def without_events(kept: Kept, *columns: Any) -> Select[Any]:
    """Select columns of the stored sums that are of no event, or of a time within an hour."""
    event, stored = UsageEvent, kept.table
    keys = (event.account, hour_text(event.time), *kept.by.values())
    names = ("account", "hour", *kept.by)
    used = (
        select(*(key.label(name) for key, name in zip(keys, names, strict=True)))
        .where(is_not_archived(), kept.has_value)
        .group_by(*keys)
        .prefix_with("SQL_BIG_RESULT", dialect="mysql")
        .subquery()
    )
    same = [getattr(stored, name) == used.c[name] for name in ("account", *kept.by)]
    same.append(cast(stored.hour, String(26)) == used.c.hour)
    return (
        select(*columns)
        .outerjoin_from(stored, used, and_(*same))
        .where(kept.where, used.c.account.is_(None))
    )


def without_versions(*columns: Any) -> Select[Any]:
    """Select columns of the sums of hours that have no sums by version."""
    hour, version = UsageHour, UsageVersion
    same = [getattr(hour, name) == getattr(version, name) for name in ("account", "hour", *_PRICED)]
    return (
        select(*columns).outerjoin_from(hour, version, and_(*same)).where(version.account.is_(None))
    )
