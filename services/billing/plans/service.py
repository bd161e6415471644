"""Plans: storing and listing them, and looking up which is in force and its prices."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.ledger.accounts import find_currencies
from services.billing.models import Plan, Price
from services.billing.plans import repository
from services.billing.plans.repository import Assignment
from services.billing.plans.schemas import PlanCreate, PlanListed, PlanRead, PriceRead, TrialCredit
from services.common.contracts import MAX_BURST, MAX_PER_SECOND, MIN_PER_SECOND, RateLimit
from services.common.errors import NotFound, Unavailable
from services.common.identity.caller import Caller

_PLANS = UUID("6f1d3c0a-52f8-4b5e-9a37-0c2d9be4d1a6")
"""The namespace of plan ids (RFC 9562 §5.5): the same plan has the same id everywhere."""


_NEWER_TERMS = ("public", "description", "monthly_fee", "trial_credit")


class PlanNotFound(NotFound):
    """There is no plan with this id."""

    code = "plan_not_found"
    detail = "Plan not found."


@dataclass(frozen=True, slots=True)
class PriceBook:
    """The plans and prices of some accounts, read once and then queried without SQL."""

    plans: Mapping[str, Plan]
    prices: Mapping[str, tuple[Plan, Price]]
    """By id, each with its plan."""
    models: Mapping[tuple[str, str | None], Price]
    """By plan and model."""
    assignments: Mapping[str, Sequence[Assignment]]
    """By account, in the order in which they take effect."""
    default_plan: str | None

    def plan_at(self, account: str, moment: datetime) -> Plan | None:
        """Return the plan in force for an account at a moment."""
        plan_id = self.default_plan
        for assignment in self.assignments.get(account, ()):
            if assignment.effective_from <= moment:
                plan_id = assignment.plan_id or self.default_plan
        return self.plans[plan_id] if plan_id else None

    def price_for(self, plan: Plan, model: str) -> Price | None:
        """Return a model's own price under a plan, or the price of all other models, or None."""
        return self.models.get((plan.id, model)) or self.models.get((plan.id, None))


async def read_price_book(
    session: AsyncSession,
    *,
    accounts: Collection[str],
    price_ids: Collection[str] = (),
    default_plan: str | None,
) -> PriceBook:
    """Read the plans of accounts, and the prices with the given ids.

    Raises:
        Unavailable: the default plan is not stored yet.
    """
    assignments: dict[str, list[Assignment]] = {}
    for assignment in await repository.list_assignments(session, accounts=accounts):
        assignments.setdefault(assignment.account, []).append(assignment)
    plans = await _read_plans(
        session,
        plan_ids={each.plan_id for given in assignments.values() for each in given if each.plan_id},
        price_ids=price_ids,
        default_plan=default_plan,
    )
    priced = [(plan, price) for plan in plans.values() for price in plan.prices]
    return PriceBook(
        plans=plans,
        prices={price.id: (plan, price) for plan, price in priced},
        models={(plan.id, price.model): price for plan, price in priced},
        assignments=assignments,
        default_plan=default_plan,
    )


async def find_plans_in_force(
    session: AsyncSession, *, accounts: Collection[str], default_plan: str | None, at: datetime
) -> tuple[dict[str, Plan | None], dict[str, str]]:
    """Return the plan of each account at a moment, and the currencies that are fixed.

    Raises:
        Unavailable: the default plan is not stored yet.
    """
    given = await repository.find_in_force(session, accounts=accounts, at=at)
    named = {account: plan_id or default_plan for account, (plan_id, _) in given.items()}
    plans = await _read_plans(
        session, plan_ids={each for each in named.values() if each}, default_plan=default_plan
    )
    in_force = {
        account: plans[plan_id] if (plan_id := named.get(account, default_plan)) else None
        for account in accounts
    }
    currencies = await find_currencies(session, accounts=in_force.keys() - given.keys())
    currencies |= {account: currency for account, (_, currency) in given.items() if currency}
    return in_force, currencies


async def find_currency(
    session: AsyncSession, *, account: str, default_plan: str | None, now: datetime
) -> str | None:
    """Return an account's fixed currency, or else that of its plan, or None without a plan."""
    fixed = await find_currencies(session, accounts=[account])
    if account in fixed:
        return fixed[account]
    book = await read_price_book(session, accounts=[account], default_plan=default_plan)
    plan = book.plan_at(account, now)
    return plan.currency if plan else None


async def _read_plans(
    session: AsyncSession,
    *,
    plan_ids: Collection[str],
    price_ids: Collection[str] = (),
    default_plan: str | None,
) -> dict[str, Plan]:
    wanted = {*plan_ids} if default_plan is None else {*plan_ids, default_plan}
    found = await repository.find_plans(session, plan_ids=wanted, price_ids=price_ids)
    plans = {plan.id: plan for plan in found}
    if default_plan is not None and default_plan not in plans:
        raise Unavailable("The default plan is not stored yet.")
    return plans


def plan_ids(plan: PlanCreate) -> tuple[str, list[str]]:
    """Return the ids of a plan and its prices, derived from the plan's content.

    Newer terms count only if they are given, because plans had ids before these existed.
    """
    absent = {name for name in _NEWER_TERMS if not getattr(plan, name)}
    content = plan.model_dump(mode="json", exclude=absent)
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    plan_id = uuid5(_PLANS, canonical.decode())
    return str(plan_id), [str(uuid5(plan_id, str(i))) for i in range(len(plan.prices))]


async def store_plan(session: AsyncSession, *, plan: PlanCreate, now: datetime) -> PlanRead:
    """Store a plan if it is new; return it as stored."""
    plan_id, price_ids = plan_ids(plan)
    await repository.add_plan(session, plan_id=plan_id, price_ids=price_ids, plan=plan, now=now)
    (stored,) = await repository.find_plans(session, plan_ids=[plan_id])
    return read_plan(stored)


async def list_plans(
    session: AsyncSession, *, caller: Caller | None, default_plan: str | None, now: datetime
) -> list[PlanListed]:
    """List the plans that a caller may see, oldest first.

    These are the public plans and the default plan; for an account also its current and upcoming
    plans; for an administrator all plans.
    """
    given: list[Assignment] = []
    if caller is not None:
        given = await repository.list_assignments(session, accounts=[caller.account])
    current, upcoming = _current_and_upcoming(given, now=now)
    current = current or default_plan
    if caller is not None and "admin" in caller.scopes:
        plans = await repository.list_plans(session)
    else:
        seen = {each for each in (default_plan, current, *upcoming) if each}
        plans = await repository.list_public_plans(session, others=seen)
    current = current if caller is not None else None
    return [_shown(plan, default_plan=default_plan, current=current) for plan in plans]


def _current_and_upcoming(
    assignments: Sequence[Assignment], *, now: datetime
) -> tuple[str | None, set[str | None]]:
    """Return the ids of the plan in force and of the upcoming ones; None is the default plan."""
    begun = [each.plan_id for each in assignments if each.effective_from <= now]
    upcoming = {each.plan_id for each in assignments if each.effective_from > now}
    return (begun[-1] if begun else None), upcoming


def _shown(plan: Plan, *, default_plan: str | None, current: str | None) -> PlanListed:
    is_default = plan.id == default_plan
    return PlanListed.model_construct(
        **{
            **dict(read_plan(plan)),
            "public": plan.public or is_default,
            "default": is_default,
            "current": plan.id == current,
        }
    )


def rate_limit(plan: Plan) -> RateLimit | None:
    """Return a stored plan's rate limit, within bounds: an earlier version stored any value."""
    if plan.rate_per_second is None or plan.rate_burst is None:
        return None
    return RateLimit(
        per_second=min(max(plan.rate_per_second, MIN_PER_SECOND), MAX_PER_SECOND),
        burst=min(max(plan.rate_burst, 1.0), MAX_BURST),
    )


def read_plan(plan: Plan) -> PlanRead:
    """Return a stored plan as the API shows it."""
    return PlanRead.model_construct(
        id=plan.id,
        name=plan.name,
        currency=plan.currency,
        billing=plan.billing,
        prices=[
            PriceRead.model_construct(
                id=price.id,
                model=price.model,
                included_requests=price.included_requests,
                tiers=price.tiers,
            )
            for price in plan.prices
        ],
        rate_limit=rate_limit(plan),
        public=plan.public,
        description=plan.description,
        monthly_fee=amounts.join(plan.monthly_fee_high, plan.monthly_fee_low),
        trial_credit=TrialCredit.model_validate_json(plan.trial_credit)
        if plan.trial_credit
        else None,
    )
