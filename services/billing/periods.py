"""Billing periods: UTC months, named `YYYY-MM`."""

from collections.abc import Set
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.bulk_insert import upsert
from services.billing.models import Period

_CLOCKS_DIFFER_BY = timedelta(minutes=10)


def period_of(moment: datetime) -> str:
    """Return the period of an aware datetime."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return _name(utc.year, utc.month)


def start_of(period: str) -> datetime:
    """Return the first moment of a period."""
    year, month = period.split("-")
    return datetime(int(year), int(month), 1, tzinfo=UTC)


def next_period(period: str) -> str:
    """Return the period that follows."""
    start = start_of(period)
    return _name(start.year + start.month // 12, start.month % 12 + 1)


@lru_cache(maxsize=1024)
def _name(year: int, month: int) -> str:
    return f"{year:04d}-{month:02d}"


async def lock_open_period(
    session: AsyncSession, *, now: datetime, wanted: Set[str]
) -> tuple[str, Set[str]]:
    """Lock periods like `lock_periods`; return the open one, and the closed ones.

    The open one is usually that of `now`. If a clock has been set back across the end of a month
    that is closed, it is the first later one that is not: nothing is added to a closed month.
    """
    period = period_of(now)
    closed = await lock_periods(session, wanted=wanted | {period})
    while period in closed:
        period = next_period(period)
        closed |= await lock_periods(session, wanted={period})
    return period, closed


async def wait_for_batches(session: AsyncSession, *, now: datetime) -> None:
    """Wait until every transaction that stores events has ended, and keep new ones waiting.

    Each has locked the month of its own clock.
    """
    months = {
        period_of(now - _CLOCKS_DIFFER_BY),
        period_of(now),
        period_of(now + _CLOCKS_DIFFER_BY),
    }
    await upsert(session, Period, [{"id": month, "closed_at": None} for month in months])
    locked = select(Period.id).where(Period.id.in_(sorted(months))).order_by(Period.id)
    await session.execute(locked.with_for_update())


async def close_period(
    session: AsyncSession, *, period: str, reason: str | None, now: datetime
) -> None:
    """Close a period, once every transaction that saw it open has ended.

    Args:
        reason: why it is closed although usage is missing, if it is.
    """
    await upsert(session, Period, [{"id": period, "closed_at": None}])
    row = await session.get_one(Period, period, with_for_update=True, populate_existing=True)
    if row.closed_at is None:
        row.closed_at, row.forced_reason, row.bills_fees = now, reason, True


async def lock_periods(session: AsyncSession, *, wanted: Set[str]) -> Set[str]:
    """Keep periods from being closed until the transaction ends; return the closed ones.

    The lock is shared, so batches do not wait for each other. Closing a period takes an exclusive
    lock and so waits for every batch that saw it open.
    """
    rows = await session.execute(
        select(Period.id, Period.closed_at)
        .where(Period.id.in_(sorted(wanted)))
        .with_for_update(read=True)
    )
    closed_at = {period: moment for period, moment in rows}
    missing = sorted(wanted - closed_at.keys())
    if missing:
        await session.execute(insert(Period), [{"id": period} for period in missing])
    return {period for period, moment in closed_at.items() if moment is not None}
