"""The numbers of invoices, for receipts."""

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.invoices import repository


async def find_numbers(
    session: AsyncSession, *, account: str, periods: Collection[str]
) -> dict[str, str]:
    """Return the numbers of an account's invoices, by month; months without one are left out."""
    if not periods:
        return {}
    return await repository.find_numbers(session, account=account, periods=periods)


async def next_number(session: AsyncSession, *, series: str) -> int:
    """Use the next number of a series, which stays locked until the transaction ends."""
    number = await repository.lock_series(session, series=series) + 1
    await repository.store_last(session, series=series, last=number)
    return number
