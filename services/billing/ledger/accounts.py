"""Accounts: their currency, fixed by the first lease or credit, and their available money."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.bulk_insert import upsert
from services.billing.models import Account
from services.common.errors import ServiceError


class CurrencyFixed(ServiceError):
    """The account has been served, charged or credited in another currency."""

    status = 409
    code = "currency_fixed"
    detail = "The account has been served, charged or credited in another currency."


class Funds(NamedTuple):
    """What an account has available, in 10⁻⁹ of its currency."""

    currency: str
    available: int


async def find_currencies(session: AsyncSession, *, accounts: Collection[str]) -> dict[str, str]:
    """Return the currency of each account that has one."""
    if not accounts:
        return {}
    rows = await session.execute(
        select(Account.id, Account.currency).where(Account.id.in_(sorted(accounts)))
    )
    return {account: currency for account, currency in rows}


async def lock_accounts(session: AsyncSession, *, accounts: Collection[str]) -> dict[str, Funds]:
    """Lock accounts and their reservations until the transaction ends; leave out unknown ones."""
    if not accounts:
        return {}
    rows = await session.execute(
        select(Account.id, Account.currency, Account.available_high, Account.available_low)
        .where(Account.id.in_(sorted(accounts)))
        .order_by(Account.id)
        .with_for_update()
    )
    return {account: Funds(currency, amounts.join(*parts)) for account, currency, *parts in rows}


async def add_accounts(
    session: AsyncSession, *, currencies: Mapping[str, str], now: datetime
) -> None:
    """Fix the currency of accounts charged or credited for the first time.

    A plain insert, because if another transaction was first, this one must start over and see the
    currency it fixed.
    """
    if currencies:
        await session.execute(
            insert(Account),
            [
                {"id": account, "currency": currency, "available_low": 0, "created_at": now}
                for account, currency in sorted(currencies.items())
            ],
        )


async def fix_currencies(
    session: AsyncSession, *, currencies: Mapping[str, str], now: datetime
) -> set[str]:
    """Fix the currency of accounts without one; return the accounts that have another."""
    found = await find_currencies(session, accounts=currencies.keys())
    missing = {account: each for account, each in currencies.items() if account not in found}
    await add_accounts(session, currencies=missing, now=now)
    return {account for account, each in found.items() if each != currencies[account]}


async def move_money(session: AsyncSession, *, changes: Mapping[str, int], now: datetime) -> None:
    """Change what accounts have available; they exist and are locked.

    An upsert, because drivers send its rows in one statement, but updates one by one.
    """
    await upsert(
        session,
        Account,
        [
            {"id": account, "currency": "", "created_at": now}
            | amounts.columns("available", change)
            for account, change in changes.items()
            if change
        ],
        add_amounts=["available"],
    )
