"""Monthly fees: pro rata by UTC day, for the plans that an account was on in a month."""

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from services.billing.currencies import rounded
from services.billing.periods import next_period, start_of
from services.billing.plans import repository
from services.billing.plans.repository import FeePlan
from services.common.db.database import Database

_AT_ONCE = 500
"""Accounts whose fees are looked up together."""


Change = tuple[datetime, FeePlan | None]
"""When an account's plan takes effect; None is the default plan, which has no fee."""


class FeePeriod(NamedTuple):
    """Days of a month for which a plan is charged: from `first` to the day before `end`."""

    plan: FeePlan
    first: date
    end: date

    @property
    def days(self) -> int:
        """How many days that are."""
        return (self.end - self.first).days


class Fee(NamedTuple):
    """What an account owes for its days of a month on a plan; amounts in 10⁻⁹ of the unit."""

    plan: FeePlan
    days: int
    month_days: int
    amount: int


def fee_periods(changes: Iterable[Change], *, period: str) -> list[FeePeriod]:
    """Return the days of a month on each plan, in order; they never overlap.

    A day counts for the plan that is in force at its end. So the first day on a plan is included,
    and the day of a change or cancellation is not.

    Args:
        changes: when each plan takes effect, in that order.
    """
    start, end = _days(period)
    starts = [(moment.astimezone(UTC).date(), plan) for moment, plan in changes]
    found: list[FeePeriod] = []
    for (first, plan), (next_first, _) in pairwise([*starts, (end, None)]):
        one = max(first, start), min(next_first, end)
        if plan is not None and one[0] < one[1]:
            found.append(FeePeriod(plan, *one))
    return found


def fees_of(changes: Iterable[Change], *, period: str, currency: str) -> list[Fee]:
    """Return the fees of an account's plans for a month, in the order in which they began.

    A plan in another currency than the account's serves it nothing, so it is not charged.

    Args:
        changes: when each plan takes effect, in that order.
    """
    start, end = _days(period)
    month_days = (end - start).days
    days: dict[FeePlan, int] = {}
    for each in fee_periods(changes, period=period):
        if each.plan.monthly_fee and each.plan.currency == currency:
            days[each.plan] = days.get(each.plan, 0) + each.days
    return [
        Fee(plan, count, month_days, pro_rata(plan.monthly_fee, days=count, month_days=month_days))
        for plan, count in days.items()
    ]


def pro_rata(monthly_fee: int, *, days: int, month_days: int) -> int:
    """Return the part of a fee for some days of a month, to the nearest 10⁻⁹, half to even."""
    return rounded(Fraction(monthly_fee * days, month_days), unit=1)


def _days(period: str) -> tuple[date, date]:
    """Return the first day of a month and that of the next."""
    return start_of(period).date(), start_of(next_period(period)).date()


async def find_fees(
    session: AsyncSession, *, accounts: Collection[str], period: str, currencies: Mapping[str, str]
) -> dict[str, list[Fee]]:
    """Return the fees of those accounts that owe some for a month, as far as it is planned now.

    Args:
        currencies: those that are fixed; else it is that of the first plan with a fee.
    """
    found: dict[str, list[Fee]] = {}
    changes = await read_changes(session, accounts=accounts, before=start_of(next_period(period)))
    for account, mine in changes.items():
        currency = currencies.get(account) or _first_currency(mine, period=period)
        fees = fees_of(mine, period=period, currency=currency) if currency else []
        if fees:
            found[account] = fees
    return found


async def read_changes(
    session: AsyncSession | AsyncConnection, *, accounts: Collection[str], before: datetime
) -> dict[str, list[Change]]:
    """Return when the plans of accounts took effect, in that order, up to a moment."""
    changes: dict[str, list[Change]] = {}
    for each in await repository.list_changes(session, accounts=accounts, before=before):
        changes.setdefault(each.account, []).append((each.effective_from, each.plan))
    return changes


def _first_currency(changes: Iterable[Change], *, period: str) -> str | None:
    charged = (each.plan for each in fee_periods(changes, period=period) if each.plan.monthly_fee)
    return next((plan.currency for plan in charged), None)


async def stream_fee_accounts(
    database: Database, *, period: str, at_once: int = _AT_ONCE
) -> AsyncGenerator[list[str]]:
    """Yield the accounts that may owe a fee for a month, in order, some at a time."""
    last = ""
    while True:
        async with database.snapshot() as session:
            page = await repository.list_fee_accounts(
                session, before=start_of(next_period(period)), after=last, limit=at_once
            )
        if not page:
            return
        yield page
        last = page[-1]
