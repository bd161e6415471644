"""Lease terms: the plan, prices and rate limit under which a process serves an account."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.models import Plan
from services.billing.periods import period_of
from services.billing.plans.pricing import unit_prices
from services.billing.plans.service import find_plans_in_force, rate_limit
from services.billing.usage.service import count_requests
from services.common.contracts import LeaseTerms, PriceTerms, format_amount


async def find_terms(
    session: AsyncSession,
    *,
    accounts: Sequence[str],
    default_plan: str | None,
    now: datetime,
) -> tuple[list[LeaseTerms], dict[str, str]]:
    """Return the terms of accounts at a moment, in their order, before anything is granted.

    Also return the currencies of the accounts that have one.
    """
    plans, currencies = await find_plans_in_force(
        session, accounts=accounts, default_plan=default_plan, at=now
    )
    by_count = _plans_by_count(plans)
    counted = await count_requests(
        session,
        accounts=[account for account, plan in plans.items() if plan in by_count],
        period=period_of(now),
    )
    return make_terms(accounts, plans=plans, counted=counted, currencies=currencies), currencies


def make_terms(
    accounts: Sequence[str],
    *,
    plans: Mapping[str, Plan | None],
    counted: Mapping[tuple[str, str], int],
    currencies: Mapping[str, str],
) -> list[LeaseTerms]:
    """Return the terms of accounts, in their order.

    Args:
        plans: the plan of each account.
        counted: this month's requests by account and price, where prices depend on them.
        currencies: those that are fixed; an account cannot be served in another.
    """
    by_count = _plans_by_count(plans)
    terms: list[LeaseTerms] = []
    offers: dict[tuple[Plan | None, tuple[int, ...]], LeaseTerms] = {}  # most accounts share one
    for account in accounts:
        plan = plans[account]
        made: tuple[int, ...] = ()
        if plan and plan in by_count:
            made = tuple(counted.get((account, price.id), 0) for price in plan.prices)
        offer = offers.get((plan, made))
        if offer is None:
            offer = offers[plan, made] = _offer(plan, made=made) if plan else _NO_PLAN
        if currencies.get(account, offer.currency) != offer.currency:
            offer = _NO_PLAN
        terms.append(_for_account(offer, account))
    return terms


def _for_account(offer: LeaseTerms, account: str) -> LeaseTerms:
    """Return an offer as one account's terms; `dataclasses.replace` would take longer."""
    return LeaseTerms(
        account=account,
        status=offer.status,
        currency=offer.currency,
        billing=offer.billing,
        granted=offer.granted,
        prices=offer.prices,
        rate_limit=offer.rate_limit,
    )


def without_plan(account: str) -> LeaseTerms:
    """Return the terms of an account that may not be served."""
    return _for_account(_NO_PLAN, account)


def _plans_by_count(plans: Mapping[str, Plan | None]) -> set[Plan]:
    """Return the plans on which a price depends on the number of requests in the month."""
    return {
        plan
        for plan in set(plans.values())
        if plan and any(price.included_requests or len(price.tiers) > 1 for price in plan.prices)
    }


_NO_PLAN = LeaseTerms(
    account="",
    status="no_plan",
    currency=None,
    billing=None,
    granted="0",
    prices=[],
    rate_limit=None,
)


def _offer(plan: Plan, *, made: Sequence[int]) -> LeaseTerms:
    """Return the terms of any account on a plan.

    Args:
        made: the account's requests of this month under each of the plan's prices, if they matter.
    """
    prices: list[PriceTerms] = []
    for price, requests in zip(plan.prices, made or [0] * len(plan.prices), strict=True):
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
    return LeaseTerms(
        account="",
        status="ok",
        currency=plan.currency,
        billing=plan.billing,
        granted="0",
        prices=prices,
        rate_limit=rate_limit(plan),
    )
