"""What accounts pay: the revenue of months, the accounts that were active, and their usage."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, zip_longest
from typing import Any

from services.console.apis import admin_billing
from services.console.apis.calls import Api
from services.console.usage.figures import Month

MAX_ACCOUNTS_LOOKED_AT = 60
"""How many accounts a page reads, with a call for each."""
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Sales:
    """What all accounts of a currency used in a month, before tax and invoices' rounding."""

    currency: str
    revenue: Decimal
    requests: int
    rows: int
    accounts: int
    """How many accounts used something."""


@dataclass(frozen=True, slots=True)
class Revenue:
    """A month's usage of all accounts; the currency that brings in most comes first."""

    month: Month
    currencies: Sequence[Sales]

    @property
    def requests(self) -> int:
        """The requests in all currencies."""
        return sum(each.requests for each in self.currencies)

    @property
    def rows(self) -> int:
        """The rows in all currencies."""
        return sum(each.rows for each in self.currencies)

    @property
    def accounts(self) -> int:
        """The active accounts; each has one currency."""
        return sum(each.accounts for each in self.currencies)

    def amount(self, currency: str) -> Decimal:
        """Return the revenue in a currency."""
        found = (each.revenue for each in self.currencies if each.currency == currency)
        return next(found, Decimal(0))


async def read_revenue(billing: Api, *, token: str, month: Month) -> Revenue:
    """Return what all accounts pay for a month; raises as `admin_billing.read_revenue`."""
    found = await admin_billing.read_revenue(billing, token=token, period=month.id)
    sales = [
        Sales(
            each["currency"],
            Decimal(each["revenue"]),
            each["requests"],
            each["rows"],
            each["accounts"],
        )
        for each in found["currencies"]
    ]
    return Revenue(month, sorted(sales, key=lambda each: (-each.revenue, each.currency)))


async def list_active(billing: Api, *, token: str, period: str) -> list[str]:
    """Return the accounts that were charged most in a month, those of each currency in order.

    Raises:
        ApiUnavailable, TokenRejected, ApiProblem: as `admin_billing.read_revenue`.
    """
    found = await admin_billing.read_revenue(billing, token=token, period=period)
    by_currency = [[each["account"] for each in one["largest"]] for one in found["currencies"]]
    ranks = chain.from_iterable(zip_longest(*by_currency))
    return [account for account in ranks if account is not None]


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
