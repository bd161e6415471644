"""Reading all usage events once, to find the hours whose stored sums may differ from them.

The events are read in the order of their primary key, some hours at a time, so that the groups of
one statement fit in the database's memory. Only what differs leaves the database, and tags. On
MySQL, fingerprints show for most hours that nothing differs, and only the others are grouped.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
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
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.amounts import is_total, totals
from services.billing.archives.models import is_not_archived
from services.billing.fingerprints import Weights, new_weights
from services.billing.models import UsageBreakdown, UsageEvent, UsageHour, UsageVersion
from services.billing.usage.agreeing import StoredSums
from services.billing.usage.columns import exact_sums, stored_sums, sums_of
from services.billing.usage.kept import (
    API_KEYS,
    HOURS,
    IS_KEY,
    IS_TAG,
    PRICED,
    TAGS,
    VERSIONS,
    Kept,
    events_of,
)
from services.billing.usage.sums import (
    NO_USAGE,
    BreakdownKey,
    Sums,
    dimension_of_tag,
    hour_of,
)
from services.billing.usage.windows import Window, find_windows, hour_text, own_month

_ACCOUNTS_AT_ONCE = 500
_TOTALS = ("large", "keys", "tags", "moved", "fingerprint")
"""What is summed over all groups of events."""


class AccountHour(NamedTuple):
    """An account's hour."""

    account: str
    hour: datetime


class Scan(NamedTuple):
    """What reading all usage events has shown.

    Args:
        hours: those with events, and with some sum that may differ.
        lonely: the stored sums of which some have no events, or of hours, no sums by version.
        moved: how many events are billed in another month than their own.
        fingerprint: the sum of what was asked for; None if an amount needs more than 64 bits.
    """

    hours: set[AccountHour]
    lonely: list[Kept]
    moved: int
    fingerprint: int | None


class _Seen(NamedTuple):
    """What comparing some sums has shown: wrong hours, stored sums, and totals over all groups."""

    hours: set[AccountHour]
    stored: int
    totals: dict[str, int]


async def scan_events(connection: AsyncConnection, *, fingerprint: Any = None) -> Scan:
    """Compare all stored sums of hours with the usage events.

    The sums by version are compared with the events, and those of hours with the sums by version,
    which are fewer. The stored sums found thereby are counted: if there are more, the rest has no
    events.

    Args:
        fingerprint: a whole number of each event, as SQL, of which to return the sum.
    """
    hours = await _of_other_dimensions(connection)
    names = await _tags_of_accounts(connection)
    on_mysql = connection.dialect.name == "mysql"
    weights = new_weights() if on_mysql else None
    of_hours = await _compare_hours(connection, weights)
    versions = weights and await StoredSums.read(connection, VERSIONS, weights)
    api_keys = weights and await StoredSums.read(connection, API_KEYS, weights)
    hours |= of_hours.hours
    more: Counter[str] = Counter()
    by_version = by_key = by_tag = 0
    for window in await find_windows(connection):
        seen = await _compare_events(connection, window, VERSIONS, versions, _more(fingerprint))
        by_version, hours = by_version + seen.stored, hours | seen.hours
        more.update(seen.totals)
        if seen.totals["keys"]:
            of_keys = await _compare_events(connection, window, API_KEYS, api_keys)
            by_key, hours = by_key + of_keys.stored, hours | of_keys.hours
        if seen.totals["tags"]:
            wrong, found = await _by_tag(connection, window, on_mysql, names)
            by_tag, hours = by_tag + found, hours | wrong
    counts = ((HOURS, of_hours.stored), (VERSIONS, by_version), (API_KEYS, by_key), (TAGS, by_tag))
    lonely = [kept for kept, found in counts if await _count(connection, kept) != found]
    sum_of = None if more["large"] else more["fingerprint"]
    return Scan(hours, lonely, more["moved"], sum_of)


async def _compare_hours(connection: AsyncConnection, weights: Weights | None) -> _Seen:
    """Compare the sums of hours with those by version."""
    if weights is None:
        return await _compare(connection, _of_versions(on_mysql=False), HOURS)
    hours = await StoredSums.read(connection, HOURS, weights)
    if found := await hours.agree_with_versions(connection):
        return _Seen(set(), found.stored, {})
    return await _compare(connection, _of_versions(on_mysql=True), HOURS)


async def _compare_events(
    connection: AsyncConnection,
    window: Window,
    kept: Kept,
    stored: StoredSums | None,
    more: Sequence[ColumnElement[Any]] = (),
) -> _Seen:
    """Compare stored sums with a window's events.

    Args:
        stored: their fingerprints, on MySQL.
        more: what else to count of the events.
    """
    if stored and (found := await stored.agree_with_events(connection, window, more)):
        return _Seen(set(), found.stored, found.more)
    sums = _of_events(window, kept, on_mysql=stored is not None).add_columns(*more)
    return await _compare(connection, sums, kept)


async def _of_other_dimensions(connection: AsyncConnection) -> set[AccountHour]:
    """Return the hours with sums by version that the version before stored among the others."""
    kept = UsageBreakdown
    found = await connection.execute(
        select(kept.account, kept.hour).distinct().where(not_(or_(IS_KEY, IS_TAG)))
    )
    return {AccountHour(account, hour_of(hour)) for account, hour in found}


async def _tags_of_accounts(connection: AsyncConnection) -> dict[str, set[str]]:
    """Return the dimensions of tags that each account has sums by."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    kept = UsageBreakdown
    pairs = select(kept.account, kept.dimension).group_by(kept.account, kept.dimension)
    for account, dimension in await connection.execute(pairs.having(IS_TAG)):
        names[account].add(dimension)
    return names


async def _count(connection: AsyncConnection, kept: Kept) -> int:
    count = select(func.count()).select_from(kept.table).where(kept.where)
    return await connection.scalar(count) or 0


def _hour(on_mysql: bool) -> Any:
    """Return the hour of an event in the form in which the database stores hours."""
    hour = hour_text(UsageEvent.time)
    return cast(hour, mysql.DATETIME(fsp=6)) if on_mysql else hour


def _of_events(window: Window, kept: Kept, on_mysql: bool) -> Select[Any]:
    """Select sums of a window's events by the keys of stored ones."""
    event, hour = UsageEvent, _hour(on_mysql)
    keys = [column.label(name) for name, column in kept.by.items()]
    return (
        select(
            event.account,
            hour.label("hour"),
            *keys,
            func.count().label("requests"),
            *_totals(event.rows, event.amount_low, event.amount_high, on_mysql),
        )
        .where(*events_of(window, kept))
        .group_by(event.account, hour, *kept.by.values())
    )


def _more(fingerprint: Any) -> list[ColumnElement[Any]]:
    """Return what else is counted of events while they are read."""
    event = UsageEvent
    return [
        func.count(event.api_key).label("keys"),
        func.count(event.tags).label("tags"),
        func.sum(case((event.period != own_month(event.time), 1), else_=0)).label("moved"),
        func.sum(literal(0) if fingerprint is None else fingerprint).label("fingerprint"),
    ]


def _of_versions(on_mysql: bool) -> Select[Any]:
    """Select the sums of the stored sums by version, by the keys of `HOURS`."""
    stored = UsageVersion
    keys = [getattr(stored, name) for name in ("account", "hour", *HOURS.by)]
    return select(
        *keys,
        func.sum(stored.requests).label("requests"),
        *_totals(stored.rows, stored.amount_low, stored.amount_high, on_mysql),
    ).group_by(*keys)


def _totals(rows: Any, low: Any, high: Any, on_mysql: bool) -> list[ColumnElement[Any]]:
    """Return sums of rows and amounts; `large` counts amounts that need more than 64 bits."""
    named = (("rows", totals(rows, on_mysql=on_mysql)), ("amount", totals(low, on_mysql=on_mysql)))
    return [
        *(part.label(f"{name}_{n}") for name, parts in named for n, part in enumerate(parts)),
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
        is_total(_parts(used, "rows"), stored.rows),
        is_total(_parts(used, "amount"), stored.amount_low),
        stored.amount_high == 0,
        used.c.large == 0,
    )
    return (
        select(
            used.c.account,
            used.c.hour,
            stored.account.label("stored"),
            case((is_right, 0), else_=1).label("wrong"),  # also where none is stored
            *(used.c[name] for name in _TOTALS if name in used.c),
        )
        .outerjoin_from(used, stored, and_(kept.where, *same))
        .subquery()
    )


def _parts(sums: Subquery, name: str) -> list[ColumnElement[Any]]:
    """Return the parts of a sum that `_totals` has labelled."""
    return [column for column in sums.c if column.key in (f"{name}_0", f"{name}_1")]


async def _compare(connection: AsyncConnection, sums: Select[Any], kept: Kept) -> _Seen:
    """Compare sums with stored ones."""
    compared = _compared(sums, kept)
    totals = [column for column in compared.c if column.key in _TOTALS]
    found = await connection.execute(
        select(
            func.sum(compared.c.wrong),
            func.count(compared.c.stored),
            *(func.sum(column).label(column.key) for column in totals),
        )
    )
    wrong, stored, *values = found.one()
    named = {column.key: int(value or 0) for column, value in zip(totals, values, strict=True)}
    if not wrong:
        return _Seen(set(), stored, named)
    hours = select(compared.c.account, compared.c.hour).distinct()
    rows = await connection.execute(hours.where(compared.c.wrong == 1))
    return _Seen({AccountHour(account, _as_hour(hour)) for account, hour in rows}, stored, named)


def _as_hour(stored: Any) -> datetime:
    """Return an hour that a statement computed; SQLite returns text."""
    hour = stored if isinstance(stored, datetime) else datetime.fromisoformat(stored)
    return hour_of(hour.replace(tzinfo=UTC))


async def _by_tag(
    connection: AsyncConnection,
    window: Window,
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
    window: Window, accounts: Collection[str], dimensions: Collection[str]
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
    same = [getattr(hour, name) == getattr(version, name) for name in ("account", "hour", *PRICED)]
    return (
        select(*columns).outerjoin_from(hour, version, and_(*same)).where(version.account.is_(None))
    )
