"""Billing periods: UTC months, named `YYYY-MM`."""

from collections.abc import Set
from datetime import UTC, datetime
from functools import lru_cache

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.models import Period


def period_of(moment: datetime) -> str:
    """Return the period of an aware datetime."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return _name(utc.year, utc.month)


@lru_cache(maxsize=1024)
def _name(year: int, month: int) -> str:
    return f"{year:04d}-{month:02d}"


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
