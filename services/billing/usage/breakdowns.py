"""Comparing the sums of hours with the usage events, and completing those by a dimension."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    cast,
    literal,
    null,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from services.billing.amounts import differing as differing_sums
from services.billing.amounts import exact, labelled
from services.billing.archives.models import is_not_archived
from services.billing.models import UsageBreakdown, UsageEvent, UsageHour, UsageVersion
from services.billing.usage import repository
from services.billing.usage.columns import negated_event_sums, stored_sums, sums_of
from services.billing.usage.comparing import (
    AccountHour,
    Scan,
    scan_events,
    without_events,
    without_versions,
)
from services.billing.usage.kept import HOURS, VERSIONS, Stored
from services.billing.usage.sums import (
    HOUR,
    NO_USAGE,
    BreakdownKey,
    HourKey,
    Sums,
    dimension_of_tag,
    hour_of,
)
from services.billing.usage.windows import hour_text

_HOURS_AT_ONCE = 100
_COUNTED: tuple[Stored, ...] = (UsageHour, UsageBreakdown, UsageVersion)
"""What counts requests: by hour, and by hour and version in two tables."""
_PART = "version of "
"""Begins the dimension of sums by model, price and version, which are only compared."""

ARCHIVED_BREAKDOWNS = f"""
SELECT account, hour, 'version' AS dimension, version AS value, requests, rows, amount FROM sums
UNION ALL SELECT account, hour, '{_PART}' || model || ' at ' || price_id, version,
    requests, rows, amount FROM sums
UNION ALL SELECT account, hour, 'api_key', api_key, requests, rows, amount
    FROM sums WHERE api_key IS NOT NULL
UNION ALL SELECT account, hour, '{dimension_of_tag("")}' || name,
    json_extract_string(tags, '$."' || name || '"'), requests, rows, amount
    FROM (SELECT *, unnest(json_keys(tags)) AS name FROM sums WHERE tags IS NOT NULL)
"""  # noqa: S608 - constants
"""SQL of the same sums of archived events, for DuckDB; see `EventSums`."""


async def complete_breakdowns(session: AsyncSession) -> None:
    """Add what is missing because the version before stored events without these sums.

    The caller makes sure that no other call runs at the same time.
    """
    connection = await session.connection()
    hours = await _find_incomplete(connection)
    for start in range(0, len(hours), _HOURS_AT_ONCE):
        missing = {
            key: NO_USAGE.minus(more)
            async for key, more in _compare(connection, hours[start : start + _HOURS_AT_ONCE])
            if more.requests < 0
        }
        await repository.add_to_breakdowns(session, sums=missing)


async def _find_incomplete(connection: AsyncConnection) -> list[AccountHour]:
    """Return the accounts and hours in which events have no version in these sums.

    Usually nothing is missing, which the sums of all accounts show in a fraction of the time. Those
    by version are never too large, or `verify` says so.
    """
    left: Counter[datetime] = Counter()
    # In one statement, all tables are as they were at one moment.
    for row in await connection.execute(union_all(*map(_requests_by_hour, _COUNTED))):
        left[row.hour] += labelled(row, "requests").value()
    hours = [hour for hour, requests in left.items() if requests]
    if not hours:
        return []
    found = await connection.execute(_incomplete_hours(since=min(hours), until=max(hours)))
    return [AccountHour(row.account, row.hour) for row in found]


def _requests_by_hour(kept: Stored) -> Select[Any]:
    part = _requests(kept).subquery()
    total = labelled(part.c, "requests").total().named("requests")
    return select(part.c.hour, *total).group_by(part.c.hour)


def _incomplete_hours(*, since: datetime, until: datetime) -> Select[Any]:
    """Select the accounts and hours in which events have no version, both ends included."""
    parts = (_requests(kept).where(kept.hour.between(since, until)) for kept in _COUNTED)
    both = union_all(*parts).subquery()
    keys = (both.c.account, both.c.hour)
    total = labelled(both.c, "requests").total().named("requests")
    sums = select(*keys, *total).group_by(*keys).subquery()
    return differing_sums(sums, "requests")


def _requests(kept: Stored) -> Select[Any]:
    """Select how many requests stored sums count, negated for those by version."""
    requests = exact(kept.requests)
    if kept is UsageHour:
        return select(kept.account, kept.hour, *requests.named("requests"))
    by_version = select(kept.account, kept.hour, *requests.minus().named("requests"))
    if kept is UsageBreakdown:
        return by_version.where(UsageBreakdown.dimension == literal("version"))
    return by_version


async def compare_breakdowns(
    connection: AsyncConnection, *, scan: Scan | None = None
) -> AsyncIterator[tuple[BreakdownKey, Sums]]:
    """Yield where the stored sums differ from the usage events, and what they have more.

    Args:
        scan: what `scan_events` has shown; by default, it is called.
    """
    where = scan or await scan_events(connection)
    for hours in _chunks(where.hours):
        async for difference in _compare(connection, hours):
            yield difference
    for kept in where.lonely:
        columns = {UsageBreakdown: _BREAKDOWN, UsageVersion: _VERSION}.get(kept.table)
        if columns is None:
            continue
        async for row in await connection.stream(without_events(kept, *columns)):
            if AccountHour(row.account, hour_of(row.time)) in where.hours:
                continue  # compared above
            for dimension, value in _values(row):
                yield BreakdownKey(row.account, dimension, row.time, value), sums_of(row)


async def compare_hours(
    connection: AsyncConnection, *, scan: Scan
) -> AsyncIterator[tuple[HourKey, Sums]]:
    """Yield where the sums of hours differ from the usage events, and what they have more."""
    for hours in _chunks(scan.hours):
        for row in await connection.execute(_different_hours(hours)):
            hour = datetime.fromisoformat(row.hour).replace(tzinfo=UTC)
            yield HourKey(row.account, hour, row.model, row.price_id), sums_of(row)
    # The others are the sums of those by version, which are right if they have events.
    selections = [without_versions(*_HOUR)] if HOURS in scan.lonely else []
    if VERSIONS in scan.lonely:
        selections.append(without_events(VERSIONS, *_VERSION))
    for selection in selections:
        async for row in await connection.stream(selection):
            if AccountHour(row.account, hour_of(row.time)) not in scan.hours:
                yield HourKey(row.account, row.time, row.model, row.price_id), sums_of(row)


def _chunks(hours: Collection[AccountHour]) -> Iterator[Sequence[AccountHour]]:
    """Yield a few hours at a time, in order."""
    ordered = sorted(hours)
    for start in range(0, len(ordered), _HOURS_AT_ONCE):
        yield ordered[start : start + _HOURS_AT_ONCE]


async def _compare(
    connection: AsyncConnection, hours: Sequence[AccountHour]
) -> AsyncIterator[tuple[BreakdownKey, Sums]]:
    """Compare the sums of some hours."""
    sums: defaultdict[BreakdownKey, Sums] = defaultdict(lambda: NO_USAGE)
    current = None
    async for row in await connection.stream(_both(hours)):
        if (row.account, row.hour) != current:
            for difference in _not_zero(sums):
                yield difference
            sums.clear()
            current = (row.account, row.hour)
        more = sums_of(row)
        hour = datetime.fromisoformat(row.hour).replace(tzinfo=UTC)
        for dimension, value in _values(row):
            key = BreakdownKey(row.account, dimension, hour, value)
            sums[key] = sums[key].plus(*more)
    for difference in _not_zero(sums):
        yield difference


def _not_zero(sums: dict[BreakdownKey, Sums]) -> list[tuple[BreakdownKey, Sums]]:
    """Return what differs."""
    return [(key, more) for key, more in sorted(sums.items()) if is_difference(key.dimension, more)]


def is_difference(dimension: str, more: Sums) -> bool:
    """Return whether stored sums of a dimension are wrong, given what they have more.

    Parts may lack what the version before counted by version alone.
    """
    return more != NO_USAGE and (max(more) > 0 or not dimension.startswith(_PART))


def _values(row: Any) -> Iterator[tuple[str, str]]:
    """Yield the dimensions of a row, and its value in each."""
    if row.dimension is not None:
        yield row.dimension, row.value
        return
    yield "version", row.version
    yield f"{_PART}{row.model} at {row.price_id}", row.version
    if row.api_key is not None:
        yield "api_key", row.api_key
    for name, value in orjson.loads(row.tags or "{}").items():
        yield dimension_of_tag(name), value


def _both(hours: Sequence[AccountHour]) -> Select[Any]:
    """Select the stored sums, and negated ones of usage events, ordered by account and hour."""
    kept, versions, event = UsageBreakdown, UsageVersion, UsageEvent
    of_event = (event.model, event.price_id, event.version, event.api_key, event.tags)
    stored = select(
        kept.account,
        _text(kept.hour).label("hour"),
        kept.dimension,
        kept.value,
        *(null().label(name) for name in ("model", "price_id", "version", "api_key", "tags")),
        *stored_sums(kept),
    ).where(_is_in(kept, hours))
    by_version = select(
        versions.account,
        _text(versions.hour).label("hour"),
        null().label("dimension"),
        null().label("value"),
        versions.model,
        versions.price_id,
        versions.version,
        null().label("api_key"),
        null().label("tags"),
        *stored_sums(versions),
    ).where(_is_in(versions, hours))
    used = _used(hours, null().label("dimension"), null().label("value"), *of_event).group_by(
        event.account, hour_text(event.time), *of_event
    )
    both = union_all(stored, by_version, used).subquery()
    return select(both).order_by(both.c.account, both.c.hour)


def _different_hours(hours: Sequence[AccountHour]) -> Select[Any]:
    """Select where the sums of some hours differ from their usage events, and by how much."""
    kept, event = UsageHour, UsageEvent
    stored = select(
        kept.account, _text(kept.hour).label("hour"), kept.model, kept.price_id, *stored_sums(kept)
    ).where(_is_in(kept, hours))
    used = _used(hours, event.model, event.price_id).group_by(
        event.account, hour_text(event.time), event.model, event.price_id
    )
    both = union_all(stored, used).subquery()
    keys = [both.c[name] for name in HourKey._fields]
    sums = [part for name in Sums._fields for part in labelled(both.c, name).total().named(name)]
    differences = differing_sums(select(*keys, *sums).group_by(*keys).subquery(), *Sums._fields)
    return differences.order_by(*map(text, HourKey._fields))


def _used(hours: Sequence[AccountHour], *columns: Any) -> Select[Any]:
    """Select negated sums of the usage events of some hours; the caller groups them."""
    event = UsageEvent
    is_in = (
        and_(event.account == who, event.time >= hour, event.time < hour + HOUR)
        for who, hour in hours
    )
    return select(
        event.account,
        hour_text(event.time).label("hour"),
        *columns,
        *negated_event_sums(),
    ).where(is_not_archived(), or_(*is_in))


def _is_in(stored: Stored, hours: Sequence[AccountHour]) -> ColumnElement[bool]:
    """Return whether stored sums are of some hours, or of a time within one."""
    is_in = (
        and_(stored.account == who, stored.hour >= hour, stored.hour < hour + HOUR)
        for who, hour in hours
    )
    return or_(*is_in)


def _text(moment: Any) -> Any:
    """Return a datetime as text, alike on both databases."""
    return cast(moment, String(26))


_HOUR = (
    UsageHour.account,
    UsageHour.hour.label("time"),
    UsageHour.model,
    UsageHour.price_id,
    *stored_sums(UsageHour),
)
_BREAKDOWN = (
    UsageBreakdown.account,
    UsageBreakdown.hour.label("time"),
    UsageBreakdown.dimension,
    UsageBreakdown.value,
    *stored_sums(UsageBreakdown),
)
_VERSION = (
    UsageVersion.account,
    UsageVersion.hour.label("time"),
    null().label("dimension"),
    UsageVersion.model,
    UsageVersion.price_id,
    UsageVersion.version,
    null().label("api_key"),
    null().label("tags"),
    *stored_sums(UsageVersion),
)
