"""Adding what pods of the version before leave out: entries, late events, and sums.

Such pods go on until an update is complete, so every run that issues invoices looks for it. Each
step is safe to repeat, because it adds only what is missing.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.archives.models import Archive
from services.billing.corrections import summing
from services.billing.database import long_transaction
from services.billing.invoices import billed, repository
from services.billing.ledger.accounts import lock_money
from services.billing.ledger.posting import post_missing, post_missing_credits
from services.billing.usage.breakdowns import complete_breakdowns
from services.common.db.database import Database


async def catch_up(database: Database, *, period: str, series: str, now: datetime) -> None:
    """Add what is missing for the invoices of a closed month.

    Args:
        series: the number series of invoices: runs at the same time wait for each other.

    Raises:
        LostRace: it waited too long for another transaction's locks.
        Unavailable: the database is unavailable.
    """
    async with long_transaction(database) as session:
        await _list_late_events(session, period=period, series=series)
    async with long_transaction(database) as session:
        await repository.lock_series(session, series=series)
        await post_missing_credits(session, now=now)
    async with long_transaction(database) as session:
        await _sum_reversals(session)
    async with long_transaction(database) as session:
        await _complete_breakdowns(session, series=series)


async def post_usage(database: Database, *, series: str, now: datetime) -> None:
    """Post what the version before the ledger stored; other runs wait for it.

    Raises:
        LostRace: it waited too long for another transaction's locks.
        Unavailable: the database is unavailable.
    """
    async with long_transaction(database) as session:
        await repository.lock_series(session, series=series)
        await post_missing(session, now=now)


async def _list_late_events(session: AsyncSession, *, period: str, series: str) -> None:
    """List events that are billed in a month later than their own."""
    if await billed.count_events(session, period=period) != (
        await billed.count_requests(session, period=period)
    ):
        await repository.lock_series(session, series=series)
        await billed.add_late_events(session, period=period)


async def _sum_reversals(session: AsyncSession) -> None:
    """Add events that were taken back to the sums of their lines."""
    connection = await session.connection()
    archived = select(Archive.period)  # their sums were complete, and stay as they are
    found = await connection.execute(summing.missing_sums(archived=archived))
    if accounts := {row.account for row in found}:
        await lock_money(session, accounts=accounts, journals=())
        await connection.run_sync(
            lambda sync: summing.add_missing(sync, accounts=accounts, archived=archived)
        )


async def _complete_breakdowns(session: AsyncSession, *, series: str) -> None:
    """Add events to the sums by version, API key and tag."""
    await repository.lock_series(session, series=series)
    await complete_breakdowns(session)
