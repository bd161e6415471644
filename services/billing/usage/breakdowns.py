"""Comparing the sums by version, API key and tag with the usage events, and completing them."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Select, String, and_, cast, func, literal, null, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from services.billing.amounts import differing, exact, labelled
from services.billing.archives.models import is_not_archived
from services.billing.models import UsageBreakdown, UsageEvent, UsageHour, UsageVersion
from services.billing.usage import repository
from services.billing.usage.sums import HOUR, NO_USAGE, BreakdownKey, Sums, dimension_of_tag

_HOURS_AT_ONCE = 100
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
    hours = (await connection.execute(_incomplete_hours())).all()
    for start in range(0, len(hours), _HOURS_AT_ONCE):
        some = [(row.account, row.hour) for row in hours[start : start + _HOURS_AT_ONCE]]
        missing = {
            key: NO_USAGE.minus(more)
            async for key, more in compare_breakdowns(connection, hours=some)
            if more.requests < 0
        }
        await repository.add_to_breakdowns(session, sums=missing)


def _incomplete_hours() -> Select[Any]:
    """Select the accounts and hours in which events have no version in these sums."""
    by_version = UsageBreakdown.dimension == literal("version")
    both = union_all(
        select(UsageHour.account, UsageHour.hour, *exact(UsageHour.requests).named("requests")),
        select(
            UsageBreakdown.account,
            UsageBreakdown.hour,
            *exact(UsageBreakdown.requests).minus().named("requests"),
        ).where(by_version),
        select(
            UsageVersion.account,
            UsageVersion.hour,
            *exact(UsageVersion.requests).minus().named("requests"),
        ),
    ).subquery()
    keys = (both.c.account, both.c.hour)
    total = labelled(both.c, "requests").total().named("requests")
    sums = select(*keys, *total).group_by(*keys).subquery()
    return differing(sums, "requests")


async def compare_breakdowns(
    connection: AsyncConnection, *, hours: Sequence[tuple[str, datetime]] | None = None
) -> AsyncIterator[tuple[BreakdownKey, Sums]]:
    """Yield where the stored sums differ from the usage events, and what they have more.

    Args:
        hours: accounts and hours; by default, all.
    """
    sums: defaultdict[BreakdownKey, Sums] = defaultdict(lambda: NO_USAGE)
    current = None
    found = await connection.stream(_everything() if hours is None else _both(hours))
    async for row in found:
        if (row.account, row.hour) != current:
            for difference in _not_zero(sums):
                yield difference
            sums.clear()
            current = (row.account, row.hour)
        more = [labelled(row, name).value() for name in Sums._fields]
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


@cache
def _everything() -> Select[Any]:
    return _both(None)


def _both(hours: Sequence[tuple[str, datetime]] | None) -> Select[Any]:
    """Select the stored sums, and negated ones of usage events, ordered by account and hour."""
    kept, versions, event = UsageBreakdown, UsageVersion, UsageEvent
    of_event = (event.model, event.price_id, event.version, event.api_key, event.tags)
    amount = exact(event.amount_low, high=event.amount_high)
    stored = select(
        kept.account,
        _text(kept.hour).label("hour"),
        kept.dimension,
        kept.value,
        *(null().label(name) for name in ("model", "price_id", "version", "api_key", "tags")),
        *exact(kept.requests).named("requests"),
        *exact(kept.rows).named("rows"),
        *exact(kept.amount_low, high=kept.amount_high).named("amount"),
    )
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
        *exact(versions.requests).named("requests"),
        *exact(versions.rows).named("rows"),
        *exact(versions.amount_low, high=versions.amount_high).named("amount"),
    )
    used = select(
        event.account,
        _hour(event.time).label("hour"),
        null().label("dimension"),
        null().label("value"),
        *of_event,
        *exact(func.count()).minus().named("requests"),
        *exact(event.rows).total().minus().named("rows"),
        *amount.total().minus().named("amount"),
    )
    used = used.where(is_not_archived()).group_by(event.account, _hour(event.time), *of_event)
    if hours is not None:
        stored = stored.where(
            or_(*(and_(kept.account == who, kept.hour == hour) for who, hour in hours))
        )
        by_version = by_version.where(
            or_(*(and_(versions.account == who, versions.hour == hour) for who, hour in hours))
        )
        used = used.where(
            or_(
                *(
                    and_(event.account == who, event.time >= hour, event.time < hour + HOUR)
                    for who, hour in hours
                )
            )
        )
    both = union_all(stored, by_version, used).subquery()
    return select(both).order_by(both.c.account, both.c.hour)


def _text(moment: Any) -> Any:
    """Return a datetime as text, alike on both databases."""
    return cast(moment, String(26))


def _hour(moment: Any) -> Any:
    """Return the hour of a datetime like `_text`."""
    return func.substr(_text(moment), 1, 13) + literal(":00:00.000000")
