"""All SQL about plans."""

from collections.abc import AsyncIterator, Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    and_,
    case,
    delete,
    func,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from services.billing import amounts
from services.billing.amounts import exact, labelled
from services.billing.bulk_insert import upsert
from services.billing.indexes import in_account_order
from services.billing.invoices.models import LateEvent, ReversedLine
from services.billing.models import Account, AccountPlan, Plan, Price, UsageEvent, UsageMonth
from services.billing.periods import next_period, start_of
from services.billing.plans.models import Trial
from services.billing.plans.schemas import PlanCreate
from services.billing.usage.sums import NO_USAGE, Sums


async def add_plan(
    session: AsyncSession, *, plan_id: str, price_ids: list[str], plan: PlanCreate, now: datetime
) -> None:
    """Store a plan, unless it is already stored."""
    limit = plan.rate_limit
    row = {
        "id": plan_id,
        "name": plan.name,
        "currency": plan.currency,
        "billing": plan.billing,
        "rate_per_second": limit.per_second if limit else None,
        "rate_burst": limit.burst if limit else None,
        "public": plan.public,
        "description": plan.description,
        **amounts.columns("monthly_fee", plan.monthly_fee),
        "trial_credit": plan.trial_credit.model_dump_json() if plan.trial_credit else None,
        "created_at": now,
    }
    prices = [
        {
            "id": price_id,
            "plan_id": plan_id,
            "position": position,
            "model": price.model,
            "included_requests": price.included_requests,
            "tiers": price.tiers,
        }
        for position, (price_id, price) in enumerate(zip(price_ids, plan.prices, strict=True))
    ]
    await upsert(session, Plan, [row])
    await upsert(session, Price, prices)


async def find_plans(
    session: AsyncSession, *, plan_ids: Collection[str], price_ids: Collection[str] = ()
) -> list[Plan]:
    """Return plans with their prices, by plan id or by price id."""
    wanted: ColumnElement[bool] = Plan.id.in_(sorted(plan_ids))
    if price_ids:
        holding = select(Price.plan_id).where(Price.id.in_(sorted(price_ids)))
        wanted = or_(wanted, Plan.id.in_(holding))
    plans = await session.scalars(select(Plan).where(wanted).options(joinedload(Plan.prices)))
    return list(plans.unique())


async def list_plans(session: AsyncSession) -> list[Plan]:
    """Return every plan, oldest first."""
    return await _list(session, select(Plan))


async def list_public_plans(session: AsyncSession, *, others: Collection[str]) -> list[Plan]:
    """Return the public plans and those with the given ids, oldest first."""
    return await _list(session, select(Plan).where(or_(Plan.public, Plan.id.in_(sorted(others)))))


async def _list(session: AsyncSession, wanted: Select[Plan]) -> list[Plan]:
    in_order = wanted.order_by(Plan.created_at, Plan.id)
    return list(await session.scalars(in_order.options(selectinload(Plan.prices))))


class Assignment(NamedTuple):
    """From when an account is on a plan; None is the default plan, whichever that is."""

    account: str
    plan_id: str | None
    effective_from: datetime


_ASSIGNED = case((AccountPlan.follows_default, None), else_=AccountPlan.plan_id)


async def list_assignments(session: AsyncSession, *, accounts: Collection[str]) -> list[Assignment]:
    """Return the plan assignments of accounts, in the order in which they take effect."""
    if not accounts:
        return []
    assignments = await session.execute(
        select(AccountPlan.account, _ASSIGNED, AccountPlan.effective_from)
        .where(AccountPlan.account.in_(sorted(accounts)))
        .order_by(AccountPlan.effective_from, AccountPlan.id)
    )
    return [Assignment(*row) for row in assignments]


async def find_in_force(
    session: AsyncSession, *, accounts: Collection[str], at: datetime
) -> dict[str, tuple[str | None, str | None]]:
    """Return the plan in force for each account that has one, and the account's currency if fixed.

    None is the default plan.
    It reads less than `list_assignments`, since a lease call reads a thousand accounts at once.
    """
    given = await session.execute(
        select(AccountPlan.account, _ASSIGNED, Account.currency)
        .outerjoin(Account, Account.id == AccountPlan.account)
        .where(AccountPlan.account.in_(sorted(accounts)), AccountPlan.effective_from <= at)
        .order_by(AccountPlan.account, AccountPlan.effective_from, AccountPlan.id)  # as indexed
    )
    return {account: (plan_id, currency) for account, plan_id, currency in given}


async def sum_month(
    connection: AsyncConnection, *, period: str, account: str | None
) -> dict[str, Sums]:
    """Return what each account used in a month, from its sums."""
    month = UsageMonth
    columns = (month.requests, month.rows, month.amount_high, month.amount_low)
    found = select(month.account, *columns).where(month.period == period)
    if account is not None:
        found = found.where(month.account == account)
    sums: dict[str, Sums] = {}
    for owner, requests, rows, *amount in await connection.execute(found):
        sums[owner] = sums.get(owner, NO_USAGE).plus(requests, rows, amounts.join(*amount))
    return sums


async def sum_models(
    connection: AsyncConnection, *, period: str, account: str | None
) -> list[tuple[str, str, int, int]]:
    """Return account, model, requests and rows of the events that a month bills."""
    event = UsageEvent
    billed = _billed(period, account, event.account, event.model, event.rows).subquery()
    columns = (billed.c.account, billed.c.model)
    rows = exact(billed.c.rows).total()
    found = await connection.execute(
        select(*columns, func.count(), *rows.named("rows")).group_by(*columns)
    )
    return [(*row[:3], labelled(row, "rows").value()) for row in found]


async def stream_month(
    connection: AsyncConnection, *, period: str, account: str | None
) -> AsyncIterator[tuple[str, str, int]]:
    """Yield account, model and rows of the events that a month bills, by account, as accepted."""
    event = UsageEvent
    columns = (event.account, event.model, event.rows)
    in_order = (event.received_at, event.time, event.id)
    both = [*_billed(period, account, *columns, *in_order).subquery().c]
    found = select(*both[: len(columns)]).order_by(both[0], *both[len(columns) :])
    async for owner, model, rows in await connection.stream(found):
        yield owner, model, rows


def _billed(period: str, account: str | None, *columns: Any) -> CompoundSelect[Any]:
    """Select columns of the events that a month bills; those of earlier months by their list."""
    event = UsageEvent
    in_month = select(*columns).where(
        event.time >= start_of(period),
        event.time < start_of(next_period(period)),
        event.period == period,
    )
    same = and_(
        event.time == LateEvent.time, event.id == LateEvent.id, event.source == LateEvent.source
    )
    late = (
        select(*columns).select_from(LateEvent).join(event, same).where(LateEvent.period == period)
    )
    if account is not None:
        in_month = in_account_order(in_month).where(event.account == account)
        late = late.where(LateEvent.account == account)
    return union_all(in_month, late)


def add_assignment(
    session: AsyncSession,
    *,
    account: str,
    plan_id: str,
    follows_default: bool = False,
    effective_from: datetime,
    now: datetime,
) -> None:
    """Put an account on a plan, from a moment on.

    Args:
        follows_default: whether it is the default plan instead, whichever that is.
    """
    session.add(
        AccountPlan(
            account=account,
            plan_id=plan_id,
            follows_default=follows_default,
            effective_from=effective_from,
            created_at=now,
        )
    )


async def delete_upcoming(session: AsyncSession, *, account: str, now: datetime) -> None:
    """Forget the plans that an account was to be on later, with their trial."""
    upcoming = AccountPlan.account == account, AccountPlan.effective_from > now
    await session.execute(delete(AccountPlan).where(*upcoming))
    planned = Trial.account == account, Trial.granted.is_(False), Trial.starts_at > now
    await session.execute(delete(Trial).where(*planned))


# -- monthly fees --------------------------------------------------------------------------------


class FeePlan(NamedTuple):
    """What a plan charges for a month, in 10⁻⁹ of the unit."""

    id: str
    name: str
    currency: str
    monthly_fee: int


class PlanChange(NamedTuple):
    """From when an account is on a plan; None is the default plan, which has no fee."""

    account: str
    effective_from: datetime
    plan: FeePlan | None


async def list_changes(
    session: AsyncSession | AsyncConnection, *, accounts: Collection[str], before: datetime
) -> list[PlanChange]:
    """Return from when accounts are on which plan, in that order, up to a moment."""
    rows = await session.execute(
        select(
            AccountPlan.account,
            AccountPlan.effective_from,
            AccountPlan.follows_default,
            Plan.id,
            Plan.name,
            Plan.currency,
            Plan.monthly_fee_high,
            Plan.monthly_fee_low,
        )
        .join(Plan, Plan.id == AccountPlan.plan_id)
        .where(AccountPlan.account.in_(sorted(accounts)), AccountPlan.effective_from < before)
        .order_by(AccountPlan.effective_from, AccountPlan.id)
    )
    return [
        PlanChange(
            account,
            moment,
            None if follows else FeePlan(plan_id, name, currency, amounts.join(high, low)),
        )
        for account, moment, follows, plan_id, name, currency, high, low in rows
    ]


async def list_fee_accounts(
    session: AsyncSession, *, before: datetime, after: str, limit: int
) -> list[str]:
    """Return accounts that were put on a plan with a fee before a moment, in order, after one."""
    has_fee = or_(Plan.monthly_fee_low != 0, Plan.monthly_fee_high != 0)
    found = await session.scalars(
        select(AccountPlan.account)
        .distinct()
        .join(Plan, Plan.id == AccountPlan.plan_id)
        .where(
            AccountPlan.account > after,
            AccountPlan.effective_from < before,
            AccountPlan.follows_default.is_(False),
            has_fee,
        )
        .order_by(AccountPlan.account)
        .limit(limit)
    )
    return list(found)


# -- trials --------------------------------------------------------------------------------------


async def find_trial(session: AsyncSession, *, account: str) -> Trial | None:
    """Return the trial of an account."""
    return await session.get(Trial, account)


async def lock_trial(session: AsyncSession, *, account: str) -> Trial | None:
    """Return the trial of an account, locked until the transaction ends."""
    return await session.get(Trial, account, with_for_update=True, populate_existing=True)


async def add_trial(
    session: AsyncSession,
    *,
    account: str,
    plan_id: str,
    currency: str,
    amount: int,
    days: int,
    starts_at: datetime,
) -> Trial:
    """Insert a trial that is due when it starts.

    Raises:
        IntegrityError: another transaction has just inserted one of the account.
    """
    high, low = amounts.split(amount)
    trial = Trial(
        account=account,
        plan_id=plan_id,
        currency=currency,
        amount_high=high,
        amount_low=low,
        days=days,
        starts_at=starts_at,
        granted=False,
        expired_high=0,
        expired_low=0,
        due_at=starts_at,
    )
    session.add(trial)
    await session.flush()
    return trial


def mark_granted(trial: Trial, *, at: datetime, until: datetime) -> None:
    """Record that a locked trial was granted, and until when."""
    trial.granted, trial.starts_at, trial.due_at = True, at, until


def mark_expired(trial: Trial, *, amount: int, due_at: datetime | None) -> None:
    """Record what was taken back of a locked trial, and when to look again."""
    trial.expired_high, trial.expired_low = amounts.split(trial.expired + amount)
    trial.due_at = due_at


async def delete_trial(session: AsyncSession, trial: Trial) -> None:
    """Forget a locked trial that was not granted."""
    await session.delete(trial)


async def list_due_trials(
    session: AsyncSession, *, now: datetime, after: str, limit: int
) -> list[str]:
    """Return accounts whose trial is to be granted or taken back, in order, after one."""
    found = select(Trial.account).where(Trial.due_at <= now, Trial.account > after)
    return list(await session.scalars(found.order_by(Trial.account).limit(limit)))


async def sum_returned(session: AsyncSession, *, account: str, plan_id: str) -> int:
    """Return what returned to an account's balance of its usage of a plan's prices."""
    line = ReversedLine
    found = await session.execute(
        select(line.returned_high, line.returned_low)
        .join(Price, Price.id == line.price_id)
        .where(line.account == account, Price.plan_id == plan_id)
    )
    return sum(amounts.join(*each) for each in found)
