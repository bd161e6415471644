"""Subscriptions: which plan an account is on, and changing it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.currencies import minor_unit
from services.billing.ledger.accounts import (
    CurrencyFixed,
    find_currencies,
    find_money,
    fix_currencies,
    lock_money,
)
from services.billing.models import Plan
from services.billing.periods import lock_open_period, start_of
from services.billing.plans import repository
from services.billing.plans.repository import Assignment
from services.billing.plans.service import PlanNotFound
from services.billing.plans.trials import end_trial, plan_trial
from services.common.contracts import Name, format_amount
from services.common.errors import BodyInvalid, NotFound, ServiceError, Unavailable


class SubscriptionUpdate(BaseModel):
    """The plan to be on from now on."""

    model_config = ConfigDict(extra="forbid")

    plan: Name


class PlanTerms(BaseModel):
    """What being on a plan means; its prices are in `GET /plans`."""

    plan: str = Field(description="The plan's id.")
    name: str
    description: str
    currency: str
    billing: str
    monthly_fee: str
    default: bool = Field(description="Whether it is the plan of accounts without their own.")


class PlannedPlan(PlanTerms):
    effective_from: datetime


class TrialRead(BaseModel):
    """Credit that the account got to try a plan; it is used before other credit."""

    amount: str
    expires_at: datetime


class SubscriptionRead(PlanTerms):
    """The plan that an account is on."""

    account: str
    since: datetime | None = Field(description="Null if it has always been on the default plan.")
    next: PlannedPlan | None = Field(description="The plan that follows, if a change is planned.")
    trial: TrialRead | None = Field(description="Null without trial credit, or once it has ended.")


class SubscriptionNotFound(NotFound):
    """The account is on no plan."""

    code = "subscription_not_found"
    detail = "The account has no plan."


class CreditLeft(ServiceError):
    """The account has prepaid credit, which the plan it is to be on does not use."""

    status = 409
    code = "credit_left"
    detail = "The account has prepaid credit left, which the plan would not use."


# -- changing ------------------------------------------------------------------------------------


async def subscribe(
    session: AsyncSession,
    *,
    account: str,
    plan_id: str,
    may_choose_any: bool,
    default_plan: str | None,
    now: datetime,
) -> SubscriptionRead:
    """Put an account on a plan from now on, instead of what was planned; return its subscription.

    If it is on the plan, nothing changes.

    Args:
        may_choose_any: whether it may be a plan that is not public.

    Raises:
        PlanNotFound: there is no such plan, or the account may not choose it.
        CurrencyFixed: the account has been charged or credited in another currency.
        CreditLeft: the account has prepaid credit, and the plan is postpaid.
    """
    plans = await repository.find_plans(session, plan_ids=[plan_id])
    if not plans or not (may_choose_any or plans[0].public or plan_id == default_plan):
        raise PlanNotFound()
    now = await _change(
        session,
        account=account,
        plan=plans[0],
        follows_default=plan_id == default_plan,
        default_plan=default_plan,
        now=now,
    )
    return await read_subscription(session, account=account, default_plan=default_plan, now=now)


async def cancel(
    session: AsyncSession, *, account: str, default_plan: str | None, now: datetime
) -> None:
    """Put an account on the default plan from now on, whichever that is, and forget what was next.

    Raises:
        CreditLeft: the account has prepaid credit, which the default plan does not use.
        Unavailable: the default plan is not stored yet.
    """
    plan = None
    if default_plan is not None:
        plan = await _find_plan(session, default_plan)
    await _change(
        session,
        account=account,
        plan=plan,
        follows_default=True,
        default_plan=default_plan,
        now=now,
    )


async def _change(
    session: AsyncSession,
    *,
    account: str,
    plan: Plan | None,
    follows_default: bool,
    default_plan: str | None,
    now: datetime,
) -> datetime:
    """Put an account on a plan, or on none if it follows a default plan that there is not.

    Returns:
        From when it is on the plan.
    """
    now = await _lock_months(session, now=now)
    await lock_money(session, accounts=[account], journals=())
    assignments = await repository.list_assignments(session, accounts=[account])
    current, _ = _current(assignments, now=now)
    wanted = None if plan is None or follows_default else plan.id
    if current != wanted:
        if plan is None or plan.billing == "postpaid":
            await end_trial(session, account=account, now=now)
        former = current or default_plan
        await _check_credit(session, account=account, former=former, plan=plan)
        if plan is not None and not follows_default:
            await _check_currency(session, account=account, plan=plan, now=now)
    await repository.delete_upcoming(session, account=account, now=now)
    if current != wanted:
        repository.add_assignment(
            session,
            account=account,
            plan_id=plan.id if plan is not None else str(current),
            follows_default=follows_default,
            effective_from=now,
            now=now,
        )
        await session.flush()
        if plan is not None and not follows_default:
            await plan_trial(session, account=account, plan=plan, starts_at=now, now=now)
    return now


async def assign_plan(
    session: AsyncSession,
    *,
    account: str,
    plan_id: str,
    effective_from: datetime | None,
    now: datetime,
) -> datetime:
    """Put an account on any plan, from `effective_from` or from now on; return from when.

    Raises:
        PlanNotFound: there is no plan with this id.
        BodyInvalid: `effective_from` is in the past, where requests have been charged already.
        CurrencyFixed: the account has been charged or credited in another currency.
    """
    plans = await repository.find_plans(session, plan_ids=[plan_id])
    if not plans:
        raise PlanNotFound()
    if effective_from is not None and effective_from < now:
        raise BodyInvalid([{"loc": ["body", "effective_from"], "msg": "Must not be in the past."}])
    starts = max(effective_from or now, await _lock_months(session, now=now))
    await lock_money(session, accounts=[account], journals=())
    await _check_currency(session, account=account, plan=plans[0], now=now)
    repository.add_assignment(
        session, account=account, plan_id=plan_id, effective_from=starts, now=now
    )
    await session.flush()
    await plan_trial(session, account=account, plan=plans[0], starts_at=starts, now=now)
    return starts


async def _lock_months(session: AsyncSession, *, now: datetime) -> datetime:
    """Keep the open month from being closed until the transaction ends; return what counts as now.

    That is later than the clock if the clock is behind and its month is closed, so that no day of a
    closed month changes its plan.
    """
    period, _ = await lock_open_period(session, now=now, wanted=set())
    return max(now, start_of(period))


async def _check_currency(
    session: AsyncSession, *, account: str, plan: Plan, now: datetime
) -> None:
    """Check that an account can be on a plan; if that has a fee, its currency is fixed.

    Raises:
        CurrencyFixed: the account has been charged or credited in another currency.
    """
    if plan.monthly_fee_low or plan.monthly_fee_high:
        others = await fix_currencies(session, currencies={account: plan.currency}, now=now)
    else:
        currencies = await find_currencies(session, accounts=[account])
        others = {each for each, currency in currencies.items() if currency != plan.currency}
    if others:
        raise CurrencyFixed()


async def _check_credit(
    session: AsyncSession, *, account: str, former: str | None, plan: Plan | None
) -> None:
    """Refuse to leave a prepaid plan with credit, which no other plan would use.

    Less than a minor unit may stay: it remains in the balance.

    Args:
        former: the plan that the account is on.
    """
    if former is None or (plan is not None and plan.billing == "prepaid"):
        return
    left = await _find_plan(session, former)
    if left.billing != "prepaid":
        return
    available, held = await find_money(session, account=account)
    if held or not 0 <= available < minor_unit(left.currency):
        raise CreditLeft(
            f"The balance is {format_amount(available + held)} {left.currency}, of which "
            f"{format_amount(held)} is reserved for requests in progress. The plan would not use "
            "it: use it first, or ask the seller to change the plan."
        )


# -- reading -------------------------------------------------------------------------------------


async def read_subscription(
    session: AsyncSession, *, account: str, default_plan: str | None, now: datetime
) -> SubscriptionRead:
    """Return the plan that an account is on, since when, and what follows.

    Raises:
        SubscriptionNotFound: the account is on no plan.
        Unavailable: the default plan is not stored yet.
    """
    assignments = await repository.list_assignments(session, accounts=[account])
    current, since = _current(assignments, now=now)
    plan_id = current or default_plan
    if plan_id is None:
        raise SubscriptionNotFound()
    plan = await _find_plan(session, plan_id)
    upcoming = next((each for each in assignments if each.effective_from > now), None)
    planned = None
    if upcoming is not None and (next_id := upcoming.plan_id or default_plan) is not None:
        next_plan = await _find_plan(session, next_id)
        planned = PlannedPlan(
            **_terms(next_plan, default_plan=default_plan), effective_from=upcoming.effective_from
        )
    return SubscriptionRead(
        **_terms(plan, default_plan=default_plan),
        account=account,
        since=since,
        next=planned,
        trial=await _find_trial(session, account=account),
    )


async def _find_trial(session: AsyncSession, *, account: str) -> TrialRead | None:
    trial = await repository.find_trial(session, account=account)
    if trial is None or not trial.granted or trial.due_at is None:
        return None
    expires_at = trial.starts_at + timedelta(days=trial.days)
    return TrialRead(amount=format_amount(trial.amount), expires_at=expires_at)


def _current(
    assignments: Sequence[Assignment], *, now: datetime
) -> tuple[str | None, datetime | None]:
    """Return the plan that an account is on, None for the default plan, and since when."""
    plan_id, since = None, None
    for each in assignments:
        if each.effective_from <= now and each.plan_id != plan_id:
            plan_id, since = each.plan_id, each.effective_from
    return plan_id, since


async def _find_plan(session: AsyncSession, plan_id: str) -> Plan:
    """Return a plan; only the default one may be missing."""
    plans = await repository.find_plans(session, plan_ids=[plan_id])
    if not plans:
        raise Unavailable("The default plan is not stored yet.")
    return plans[0]


def _terms(plan: Plan, *, default_plan: str | None) -> dict[str, Any]:
    fee = amounts.join(plan.monthly_fee_high, plan.monthly_fee_low)
    return {
        "plan": plan.id,
        "name": plan.name,
        "description": plan.description,
        "currency": plan.currency,
        "billing": plan.billing,
        "monthly_fee": format_amount(fee),
        "default": plan.id == default_plan,
    }
