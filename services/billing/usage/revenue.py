"""What all accounts were charged in a month, from its sums."""

from collections import Counter
from typing import NamedTuple

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.invoices.models import ReversedLine
from services.billing.models import Plan, Price, UsageMonth
from services.billing.usage.sums import NO_USAGE, Sums
from services.common.contracts import format_amount

LARGEST_ACCOUNTS = 100


class AccountRevenue(BaseModel):
    account: str
    revenue: str


class CurrencyRevenue(BaseModel):
    """The revenue in one currency: usage less what was taken back, before tax and rounding."""

    currency: str
    revenue: str
    requests: int
    rows: int
    accounts: int = Field(description="How many accounts have usage.")
    largest: list[AccountRevenue] = Field(
        description=f"The {LARGEST_ACCOUNTS} accounts that were charged most; most first."
    )


class RevenueRead(BaseModel):
    """A month's revenue, by currency."""

    period: str
    currencies: list[CurrencyRevenue]


class _Payer(NamedTuple):
    currency: str
    account: str


async def read_revenue(session: AsyncSession, *, period: str) -> RevenueRead:
    """Return what all accounts were charged for a month's usage, less what was taken back."""
    payers = await _sums_by_payer(session, period=period)
    totals: dict[str, Sums] = {}
    for payer, sums in payers.items():
        totals[payer.currency] = totals.get(payer.currency, NO_USAGE).plus(*sums)
    return RevenueRead(
        period=period,
        currencies=[
            _read(currency, totals[currency], payers=payers) for currency in sorted(totals)
        ],
    )


def _read(currency: str, total: Sums, *, payers: dict[_Payer, Sums]) -> CurrencyRevenue:
    charged = sorted(
        (-sums.amount, payer.account) for payer, sums in payers.items() if payer[0] == currency
    )
    return CurrencyRevenue(
        currency=currency,
        revenue=format_amount(total.amount),
        requests=total.requests,
        rows=total.rows,
        accounts=len(charged),
        largest=[
            AccountRevenue(account=account, revenue=format_amount(-less))
            for less, account in charged[:LARGEST_ACCOUNTS]
        ],
    )


async def _sums_by_payer(session: AsyncSession, *, period: str) -> dict[_Payer, Sums]:
    month = UsageMonth
    used = await session.execute(
        select(
            Plan.currency,
            month.account,
            month.requests,
            month.rows,
            month.amount_high,
            month.amount_low,
        )
        .join(Price, Price.id == month.price_id)
        .join(Plan, Plan.id == Price.plan_id)
        .where(month.period == period)
    )
    taken_back = await _taken_back(session, period=period)
    sums: dict[_Payer, Sums] = {}
    for currency, account, requests, rows, *amount in used:
        payer = _Payer(currency, account)
        charged = amounts.join(*amount) - taken_back.pop(payer, 0)
        sums[payer] = sums.get(payer, NO_USAGE).plus(requests, rows, charged)
    return sums


async def _taken_back(session: AsyncSession, *, period: str) -> Counter[_Payer]:
    line = ReversedLine
    found = await session.execute(
        select(Plan.currency, line.account, line.amount_high, line.amount_low)
        .join(Price, Price.id == line.price_id)
        .join(Plan, Plan.id == Price.plan_id)
        .where(line.period == period)
    )
    sums: Counter[_Payer] = Counter()
    for currency, account, *amount in found:
        sums[_Payer(currency, account)] += amounts.join(*amount)
    return sums
