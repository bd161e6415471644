"""Accounts: their currency, fixed by the first lease, charge or credit, and their money."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.ledger import repository
from services.billing.ledger.reservations import CreditReservation, LockedMoney
from services.common.errors import ServiceError


class CurrencyFixed(ServiceError):
    """The account has been served, charged or credited in another currency."""

    status = 409
    code = "currency_fixed"
    detail = "The account already uses another currency."


async def find_currencies(session: AsyncSession, *, accounts: Collection[str]) -> dict[str, str]:
    """Return the currency of each account that has one."""
    if not accounts:
        return {}
    return await repository.find_currencies(session, accounts=accounts)


async def fix_currencies(
    session: AsyncSession, *, currencies: Mapping[str, str], now: datetime
) -> set[str]:
    """Fix the currency of accounts without one; return the accounts that have another."""
    fixed = await find_currencies(session, accounts=currencies.keys())
    missing = {account: each for account, each in currencies.items() if account not in fixed}
    await add_accounts(session, currencies=missing, now=now)
    return {account for account, each in fixed.items() if each != currencies[account]}


async def add_accounts(
    session: AsyncSession, *, currencies: Mapping[str, str], now: datetime
) -> None:
    """Add accounts that are charged or credited for the first time, which fixes their currency.

    Raises:
        IntegrityError: another transaction has just added one; start over to see its currency.
    """
    if currencies:
        await repository.add_accounts(session, currencies=currencies, now=now)


async def lock_money(
    session: AsyncSession, *, accounts: Collection[str], journals: Collection[str]
) -> LockedMoney:
    """Lock accounts until the transaction ends; return their funds and reservations.

    Args:
        journals: those whose reservations to return.
    """
    if not accounts:
        return LockedMoney(funds={}, reservations={})
    return await repository.lock_money(session, accounts=accounts, journals=journals)


async def find_money(session: AsyncSession, *, account: str) -> tuple[int, int]:
    """Return what an account has available, and what processes have reserved of it."""
    return await repository.find_money(session, account=account)


async def store_money(
    session: AsyncSession,
    *,
    reservations: Iterable[CreditReservation],
    changes: Mapping[str, int],
    now: datetime,
) -> None:
    """Store the money of reservations, and change what their locked accounts have available.

    Args:
        reservations: reservations that exist, as they are now.
        changes: to be added to what accounts have available.
    """
    await repository.put_money(session, reservations=reservations, now=now)
    await repository.add_available(session, changes=changes, now=now)
