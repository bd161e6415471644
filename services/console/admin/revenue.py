"""What all accounts paid in a month, from what billing offers: previews of plans, and usage."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from services.console.apis import admin_billing
from services.console.apis import billing as billing_api
from services.console.apis.calls import Api
from services.console.usage.figures import Month, daily

MAX_ACCOUNTS_BY_DAY = 60
"""Up to how many active accounts have their days added up, with a call for each."""
_AT_ONCE = 8

Day = tuple[date, int, Decimal]
"""A day, its requests, and what they cost."""


@dataclass(frozen=True, slots=True)
class Active:
    """An account that paid, or owes, something for a month's usage."""

    account: str
    currency: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Revenue:
    """A month's usage of all accounts, before tax and invoices' rounding."""

    totals: Mapping[str, Decimal]
    """By currency."""
    active: Sequence[Active]
    """The accounts with usage; those that pay most come first."""


@dataclass(frozen=True, slots=True)
class Days:
    """The days of a month: all accounts of one currency."""

    currency: str
    days: Sequence[Day]

    @property
    def today(self) -> Day:
        """The last day."""
        return self.days[-1]

    @property
    def requests(self) -> int:
        """The requests of the month."""
        return sum(requests for _, requests, _ in self.days)


async def read_revenue(billing: Api, *, token: str, period: str) -> Revenue:
    """Return what all accounts pay for a month.

    A preview of a plan names every account with usage in the plan's currency, and what it paid;
    one plan of each currency is enough.
    """
    plans = await billing_api.list_plans(billing, token=token)
    by_currency = {plan["currency"]: plan["id"] for plan in plans}
    previews = await asyncio.gather(
        *(
            admin_billing.preview_plan(billing, token=token, plan=plan, period=period)
            for plan in by_currency.values()
        )
    )
    found = dict(zip(by_currency, previews, strict=True))
    active = [
        Active(each["account"], currency, Decimal(each["before"]))
        for currency, preview in found.items()
        for each in preview["accounts"]
    ]
    return Revenue(
        totals={
            currency: Decimal(preview["total"]["before"])
            for currency, preview in found.items()
            if preview["accounts"]
        },
        active=sorted(active, key=lambda each: (-each.amount, each.account)),
    )


async def read_days(
    billing: Api, *, token: str, revenue: Revenue, month: Month, today: date
) -> Days | None:
    """Return this month's days in the currency that brings in most; None if too many accounts pay.

    Args:
        revenue: of the same month.
    """
    largest = max(revenue.totals, key=lambda each: revenue.totals[each], default=None)
    accounts = [each.account for each in revenue.active if each.currency == largest]
    if largest is None or len(accounts) > MAX_ACCOUNTS_BY_DAY:
        return None
    usages = await read_usages(billing, token=token, accounts=accounts, group_by="day")
    sums: dict[date, tuple[int, Decimal]] = defaultdict(lambda: (0, Decimal(0)))
    for usage in usages:
        for day, requests, amount in daily(usage["buckets"], month=month, today=today):
            before = sums[day]
            sums[day] = before[0] + requests, before[1] + amount
    return Days(largest, [(day, *sums[day]) for day in sorted(sums)])


async def read_usages(
    billing: Api,
    *,
    token: str,
    accounts: Sequence[str],
    group_by: str,
    since: str | None = None,
) -> list[dict[str, Any]]:
    """Return the usage of several accounts, in their order, a few calls at a time."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def read(account: str) -> dict[str, Any]:
        async with places:
            return await admin_billing.read_usage(
                billing, token=token, account=account, group_by=group_by, since=since
            )

    return list(await asyncio.gather(*(read(account) for account in accounts)))
