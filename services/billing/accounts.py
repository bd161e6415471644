"""Accounts: the currency each was first charged in."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.models import Account


async def find_currencies(session: AsyncSession, *, accounts: Collection[str]) -> dict[str, str]:
    """The currency of each account that has been charged."""
    rows = await session.execute(
        select(Account.id, Account.currency).where(Account.id.in_(sorted(accounts)))
    )
    return {account: currency for account, currency in rows}


async def add_accounts(
    session: AsyncSession, *, currencies: Mapping[str, str], now: datetime
) -> None:
    """Fix the currency of accounts charged for the first time.

    A plain insert: if another transaction was first, this one must start over and see in what.
    """
    if currencies:
        await session.execute(
            insert(Account),
            [
                {"id": account, "currency": currency, "available": 0, "created_at": now}
                for account, currency in sorted(currencies.items())
            ],
        )
