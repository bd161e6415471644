"""Verify the sums of usage, by hour, by month and by dimension, against the usage events.

Reading the events once shows which hours may differ; only those are looked at more closely. If the
sums of hours are right, those of months are compared with them.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Select, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.amounts import differing as differing_sums
from services.billing.amounts import labelled
from services.billing.archives.comparing import SUMS, Stored
from services.billing.archives.verifying import ArchivedEvents
from services.billing.models import UsageBreakdown, UsageMonth
from services.billing.usage import service
from services.billing.usage.breakdowns import (
    ARCHIVED_BREAKDOWNS,
    compare_breakdowns,
    compare_hours,
    is_difference,
)
from services.billing.usage.columns import stored_sums
from services.billing.usage.comparing import Scan
from services.billing.usage.monthly import (
    MonthlyUsage,
    count_moved,
    used_by_events,
    used_by_hours,
)
from services.billing.usage.sums import Sums, hour_of, is_tag
from services.common.contracts import format_amount


async def verify_usage(
    connection: AsyncConnection, archived: ArchivedEvents, scan: Scan
) -> tuple[list[str], MonthlyUsage]:
    """Return a sentence for each difference, and what was used in each month.

    Args:
        scan: what reading all events has shown.
    """
    hours = await _hours(connection, archived, scan)
    is_quick = not hours and await count_moved(connection) == scan.moved
    used = used_by_hours() if is_quick else used_by_events()
    differences = [
        *hours,
        *await _months(connection, archived, used),
        *await _breakdowns(connection, archived, scan),
    ]
    return differences, used


async def _hours(connection: AsyncConnection, archived: ArchivedEvents, scan: Scan) -> list[str]:
    """Report where the sums of hours differ from those of the usage events."""

    async def rows() -> AsyncIterator[Stored]:
        async for key, more in compare_hours(connection, scan=scan):
            yield (key.account, _named_hour(key.hour), key.model, key.price_id), more

    found = await archived.compare(
        rows(), keys=("account", "hour", "model", "price_id"), sums=SUMS, source="sums"
    )
    return [
        f"usage_hours: account {account}, hour {hour}, model {model}, price {price_id}: "
        f"{_usage_differs(more)}"
        for (account, hour, model, price_id), more in found
    ]


def _named_hour(hour: datetime) -> str:
    """Return an hour such as `2026-11-01 12`, as archives name it; all of a time within one."""
    return f"{hour:%Y-%m-%d %H}" if hour == hour_of(hour) else f"{hour:%Y-%m-%d %H:%M:%S.%f}"


def _usage_differs(more: Sequence[int]) -> str:
    requests, rows, amount = more
    return (
        f"differs from the usage events (requests: {requests}, rows: {rows}, "
        f"amount: {format_amount(amount)})"
    )


_MONTH = ("account", "period", "price_id")


async def _months(
    connection: AsyncConnection, archived: ArchivedEvents, used: MonthlyUsage
) -> list[str]:
    """Report where the sums of months differ from those of the usage events."""
    found = await archived.differences(
        connection,
        _month_differences(used),
        keys={name: name for name in _MONTH},
        sums={name: name for name in SUMS},
        source=used.archived,
    )
    return [
        f"usage_months: account {account}, period {period}, price {price_id}: "
        f"{_usage_differs(more)}"
        for (account, period, price_id), more in found
    ]


def _month_differences(used: MonthlyUsage) -> Select[Any]:
    stored = UsageMonth
    columns = [getattr(stored, name) for name in _MONTH]
    both = union_all(
        select(*columns, *stored_sums(stored)),
        used.minus(*_MONTH),
    ).subquery()
    keys = [both.c[name] for name in _MONTH]
    sums = [part for name in SUMS for part in labelled(both.c, name).total().named(name)]
    differences = differing_sums(select(*keys, *sums).group_by(*keys).subquery(), *SUMS)
    return differences.order_by(*map(text, _MONTH))


async def _breakdowns(
    connection: AsyncConnection, archived: ArchivedEvents, scan: Scan
) -> list[str]:
    """Report where the sums by version, API key or tag differ from those of the usage events."""

    async def rows() -> AsyncIterator[Stored]:
        async for key, more in compare_breakdowns(connection, scan=scan):
            yield (key.account, _named_hour(key.hour), key.dimension, key.value), more

    found = await archived.compare(
        rows(),
        keys=("account", "hour", "dimension", "value"),
        sums=SUMS,
        source=f"({ARCHIVED_BREAKDOWNS})",
    )
    wrong = [(key, Sums(*more)) for key, more in found if is_difference(key[2], Sums(*more))]
    left_out = await _left_out(
        connection, {key for key, more in wrong if is_tag(key[2]) and max(more) <= 0}
    )
    return [
        f"usage_breakdowns: account {account}, hour {hour}, {dimension} {value}: "
        f"{_usage_differs(more)}"
        for (account, hour, dimension, value), more in wrong
        if (account, hour, dimension, value) not in left_out
    ]


async def _left_out(
    connection: AsyncConnection, keys: Collection[tuple[str, ...]]
) -> set[tuple[str, ...]]:
    """Return which values of tags rightly have no sums: their hour has too many others."""
    kept = UsageBreakdown
    left_out: set[tuple[str, ...]] = set()
    for (account, hour, dimension), some in groupby(sorted(keys), key=_group_of_tag):
        moment = datetime.fromisoformat(f"{hour}:00" if len(hour) == len("2026-11-01 12") else hour)
        found = await connection.scalars(
            select(kept.value).where(
                kept.account == account,
                kept.dimension == dimension,
                kept.hour == moment.replace(tzinfo=UTC),
            )
        )
        stored = set(found)
        if len(stored) >= service.TAG_VALUES_PER_HOUR:
            left_out |= {key for key in some if key[-1] not in stored}
    return left_out


def _group_of_tag(key: tuple[str, ...]) -> tuple[str, str, str]:
    account, hour, dimension, _ = key
    return account, hour, dimension
