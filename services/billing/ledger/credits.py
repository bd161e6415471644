"""Prepaid money: credits and balances."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.currencies import KnownCurrency
from services.billing.fields import Reason
from services.billing.ledger import repository
from services.billing.ledger.accounts import CurrencyFixed, add_accounts
from services.billing.ledger.entries import credit_postings, make_entry
from services.billing.ledger.posting import post
from services.billing.plans.service import find_currency
from services.common.contracts import Amount, format_amount


class CreditCreate(BaseModel):
    """Money to add, and why."""

    model_config = ConfigDict(extra="forbid")

    amount: Annotated[Amount, Field(gt=0, examples=["25"])]
    currency: KnownCurrency
    reason: Reason


class CreditRead(BaseModel):
    """Money that was added."""

    id: int
    amount: str
    balance: str = Field(description="The account's balance including it.")


class BalanceRead(BaseModel):
    """`balance` is `held` plus `available`; a request's amount is held until its event arrives."""

    account: str
    currency: str | None = Field(description="Null until it is fixed, if there is no plan.")
    balance: str
    held: str
    available: str


async def add_credit(
    session: AsyncSession, *, account: str, credit: CreditCreate, by: str, now: datetime
) -> CreditRead:
    """Add prepaid money, post it and make it available.

    Raises:
        CurrencyFixed: the account has been charged or credited in another currency.
    """
    locked = await repository.lock_accounts(session, accounts=[account])
    if account not in locked:
        await add_accounts(session, currencies={account: credit.currency}, now=now)
    elif locked[account].currency != credit.currency:
        raise CurrencyFixed()
    available, held = await repository.find_money(session, account=account)
    added = await repository.add_credit(
        session,
        account=account,
        amount=credit.amount,
        currency=credit.currency,
        reason=credit.reason,
        by=by,
        now=now,
    )
    entry = make_entry(
        "credit",
        currency=credit.currency,
        reference=str(added.id),
        postings=credit_postings({account: credit.amount}),
        now=now,
    )
    added.entry_id = await post(session, entry)
    await repository.add_available(session, changes={account: credit.amount}, now=now)
    return CreditRead(
        id=added.id,
        amount=format_amount(credit.amount),
        balance=format_amount(available + held + credit.amount),
    )


async def read_balance(
    session: AsyncSession, *, account: str, default_plan: str | None, now: datetime
) -> BalanceRead:
    """Return an account's balance and how much of it is held for processes."""
    available, held = await repository.find_money(session, account=account)
    return BalanceRead(
        account=account,
        currency=await find_currency(session, account=account, default_plan=default_plan, now=now),
        balance=format_amount(available + held),
        held=format_amount(held),
        available=format_amount(available),
    )
