"""Under which terms a process may answer an account's requests: plan, prices, rate limit."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.accounts import find_currencies
from services.billing.models import Plan
from services.billing.periods import period_of
from services.billing.plans.pricing import unit_prices
from services.billing.plans.service import rate_limit, read_price_book
from services.billing.usage.repository import count_month
from services.common.contracts import LeaseTerms, PriceTerms, format_amount


async def find_terms(
    session: AsyncSession,
    *,
    accounts: Sequence[str],
    default_plan: str | None,
    now: datetime,
) -> tuple[list[LeaseTerms], dict[str, str]]:
    """The terms of accounts at a moment, in their order, before anything is granted.

    Answers also the currencies of the accounts that have one.
    """
    book = await read_price_book(session, accounts=accounts, default_plan=default_plan)
    others = set(accounts) - book.assignments.keys()
    currencies = book.currencies | await find_currencies(session, accounts=others)
    plans = {account: book.plan_at(account, now) for account in accounts}
    graded = [account for account, plan in plans.items() if plan is not None and _is_graded(plan)]
    counted = await count_month(session, accounts=graded, period=period_of(now))
    prices: dict[tuple[str, tuple[int, ...]], list[PriceTerms]] = {}
    terms: list[LeaseTerms] = []
    for account in accounts:
        plan = plans[account]
        if plan is None or currencies.get(account, plan.currency) != plan.currency:
            terms.append(_no_plan(account))
        else:
            made = tuple(counted.get((account, price.id), 0) for price in plan.prices)
            if (plan.id, made) not in prices:
                prices[plan.id, made] = _prices(plan, made=made)
            terms.append(_terms(account, plan, prices=prices[plan.id, made]))
    return terms, currencies


def _is_graded(plan: Plan) -> bool:
    """Whether what a request costs depends on how many there were in its month."""
    return any(price.included_requests or len(price.tiers) > 1 for price in plan.prices)


def _no_plan(account: str) -> LeaseTerms:
    return LeaseTerms(
        account=account,
        status="no_plan",
        currency=None,
        billing=None,
        granted="0",
        prices=[],
        rate_limit=None,
    )


def _prices(plan: Plan, *, made: Sequence[int]) -> list[PriceTerms]:
    """Args: made: requests of this month under each of the plan's prices."""
    prices: list[PriceTerms] = []
    for price, requests in zip(plan.prices, made, strict=True):
        per_request, per_row = unit_prices(
            tiers=price.tiers,
            included_requests=price.included_requests,
            number=requests + 1,
        )
        prices.append(
            PriceTerms(
                model=price.model,
                price_id=price.id,
                per_request=format_amount(per_request),
                per_row=format_amount(per_row),
            )
        )
    return prices


def _terms(account: str, plan: Plan, *, prices: list[PriceTerms]) -> LeaseTerms:
    return LeaseTerms(
        account=account,
        status="ok",
        currency=plan.currency,
        billing=plan.billing,
        granted="0",
        prices=prices,
        rate_limit=rate_limit(plan),
    )
