"""Prepaid money: credited to an account, and what is left of it."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.accounts import (
    CurrencyFixed,
    Funds,
    add_accounts,
    lock_accounts,
    move_money,
)
from services.billing.leases.repository import find_money, sum_held
from services.billing.models import REASON_CHARS, Credit
from services.billing.usage.service import find_currency
from services.common.contracts import MAX_AMOUNT, Amount, Currency, format_amount
from services.common.errors import ServiceError


class BalanceTooLarge(ServiceError):
    """The balance would be more than can be counted."""

    status = 422
    code = "balance_too_large"
    detail = "The balance would be more than can be counted."


class CreditCreate(BaseModel):
    """Money to add, and why."""

    model_config = ConfigDict(extra="forbid")

    amount: Annotated[Amount, Field(gt=0, examples=["25"])]
    currency: Currency
    reason: Annotated[str, Field(strict=True, min_length=1, max_length=REASON_CHARS)]


class CreditRead(BaseModel):
    """An entry of the ledger."""

    id: int
    amount: str
    balance: str = Field(description="The account's balance with it.")


class BalanceRead(BaseModel):
    """`balance` is `held` and `available`; a request in flight is held until its usage arrives."""

    account: str
    currency: str | None = Field(description="Null while nothing fixed it and no plan holds.")
    balance: str
    held: str
    available: str


async def add_credit(
    session: AsyncSession, *, account: str, credit: CreditCreate, by: str, now: datetime
) -> CreditRead:
    """Enter a credit in the ledger and make it available.

    Raises:
        CurrencyFixed: the account has been charged or credited in another currency.
        BalanceTooLarge: the balance would be beyond 64 bits.
    """
    found = (await lock_accounts(session, accounts=[account])).get(account)
    if found is None:
        await add_accounts(session, currencies={account: credit.currency}, now=now)
    funds = found or Funds(credit.currency, available=0)
    if funds.currency != credit.currency:
        raise CurrencyFixed()
    balance = funds.available + await sum_held(session, account=account) + credit.amount
    if balance > MAX_AMOUNT:
        raise BalanceTooLarge()

    entry = Credit(
        account=account,
        amount=credit.amount,
        currency=credit.currency,
        reason=credit.reason,
        by=by,
        created_at=now,
    )
    session.add(entry)
    await move_money(session, changes={account: credit.amount}, now=now)
    await session.flush()
    return CreditRead(
        id=entry.id, amount=format_amount(credit.amount), balance=format_amount(balance)
    )


async def read_balance(
    session: AsyncSession, *, account: str, default_plan: str | None, now: datetime
) -> BalanceRead:
    """What an account has, and how much of it processes hold."""
    available, held = await find_money(session, account=account)
    return BalanceRead(
        account=account,
        currency=await find_currency(session, account=account, default_plan=default_plan, now=now),
        balance=format_amount(available + held),
        held=format_amount(held),
        available=format_amount(available),
    )
