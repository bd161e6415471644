"""What several accounts used on each day of a month, from the sums of its hours."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.models import UsageHour
from services.billing.periods import next_period, start_of
from services.billing.plans.service import find_plans_in_force
from services.billing.usage.columns import exact_sums, sums_of
from services.billing.usage.grouping import by_value
from services.billing.usage.schemas import Bucket, Total
from services.billing.usage.sums import NO_USAGE, Sums
from services.common.contracts import format_amount

MAX_ACCOUNTS = 100


class AccountUsage(BaseModel):
    """An account's usage in a month, in total and by day; days without usage are left out."""

    account: str
    total: Total
    buckets: list[Bucket]


class AccountUsages(BaseModel):
    period: str
    accounts: list[AccountUsage] = Field(description="In the order in which they were named.")


async def read_days(
    session: AsyncSession,
    *,
    accounts: Collection[str],
    period: str,
    default_plan: str | None,
    now: datetime,
) -> AccountUsages:
    """Return what accounts used on each UTC day of a month."""
    days = await _sum_days(session, accounts=accounts, period=period)
    plans, currencies = await find_plans_in_force(
        session, accounts=accounts, default_plan=default_plan, at=now
    )
    offered = {account: plan.currency for account, plan in plans.items() if plan}
    return AccountUsages(
        period=period,
        accounts=[
            _read(account, days[account], currency=(offered | currencies).get(account))
            for account in dict.fromkeys(accounts)
        ],
    )


def _read(account: str, days: dict[str, Sums], *, currency: str | None) -> AccountUsage:
    total = NO_USAGE
    for sums in days.values():
        total = total.plus(*sums)
    return AccountUsage(
        account=account,
        total=Total(
            requests=total.requests,
            rows=total.rows,
            amount=format_amount(total.amount),
            currency=currency,
        ),
        buckets=by_value(days),
    )


async def _sum_days(
    session: AsyncSession, *, accounts: Collection[str], period: str
) -> defaultdict[str, dict[str, Sums]]:
    """Return the sums of each account's days, which are named like `2026-10-31`."""
    used, day = UsageHour, func.date(UsageHour.hour)
    found = await session.execute(
        select(
            used.account,
            day.label("day"),
            *exact_sums(used),
        )
        .where(
            used.account.in_(sorted(accounts)),
            used.hour >= start_of(period),
            used.hour < start_of(next_period(period)),
        )
        .group_by(used.account, day)
    )
    days: defaultdict[str, dict[str, Sums]] = defaultdict(dict)
    for row in found:
        days[row.account][str(row.day)] = sums_of(row)
    return days
