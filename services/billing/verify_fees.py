"""Verify monthly fees and trials: invoices have the fees of the days on each plan."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, or_, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing import amounts
from services.billing.amounts import Exact, differing, exact, labelled
from services.billing.invoices.models import Invoice, InvoiceLine
from services.billing.models import Account, AccountPlan, Credit, Period, Plan, Price
from services.billing.periods import next_period, start_of
from services.billing.plans.fees import fees_of, read_changes
from services.billing.plans.models import Trial
from services.billing.plans.schemas import PlanCreate, PriceCreate, TrialCredit
from services.billing.plans.service import plan_ids
from services.billing.plans.trials import TRIAL
from services.common.contracts import RateLimit, format_amount

_ACCOUNTS_AT_ONCE = 500
_HAS_FEE = or_(Plan.monthly_fee_low != 0, Plan.monthly_fee_high != 0)
_IS_FEE = InvoiceLine.kind == "monthly_fee"


class _Key(NamedTuple):
    """A fee of an account for a month on a plan."""

    account: str
    period: str
    plan_id: str


async def verify_fees(connection: AsyncConnection) -> list[str]:
    """Return a sentence for each difference."""
    charging = await _charging_plans(connection)
    return [
        *await _plans(connection, charging),
        *await _unknown(connection),
        *await _lines(connection, charging),
        *await _trials(connection),
    ]


async def _charging_plans(connection: AsyncConnection) -> set[str]:
    """Return the ids of plans that have a fee, or had one according to an invoice."""
    of_plans = await connection.execute(select(Plan.id).where(_HAS_FEE))
    of_lines = await connection.execute(select(InvoiceLine.price_id).where(_IS_FEE).distinct())
    return {*of_plans.scalars(), *of_lines.scalars()}


async def _plans(connection: AsyncConnection, charging: Collection[str]) -> list[str]:
    """Check plans by their ids, which are derived from their content.

    Plans without fees may be of an earlier version, which allowed other terms.
    """
    prices: dict[str, list[PriceCreate]] = {}
    for row in await connection.execute(
        select(Price.plan_id, Price.model, Price.included_requests, Price.tiers)
        .where(Price.plan_id.in_(sorted(charging)))
        .order_by(Price.plan_id, Price.position)
    ):
        price = PriceCreate.model_construct(
            model=row.model, included_requests=row.included_requests, tiers=row.tiers
        )
        prices.setdefault(row.plan_id, []).append(price)
    found = await connection.execute(
        select(*Plan.__table__.columns).where(Plan.id.in_(sorted(charging))).order_by(Plan.id)
    )
    return [
        f"plans: plan {row['id']}: has been changed"
        for row in found.mappings()
        if plan_ids(_plan(row, prices.get(row["id"], [])))[0] != row["id"]
    ]


def _plan(row: Mapping[Any, Any], prices: list[PriceCreate]) -> PlanCreate:
    limit, trial = None, row["trial_credit"]
    if row["rate_per_second"] is not None and row["rate_burst"] is not None:
        limit = RateLimit.model_construct(
            per_second=row["rate_per_second"], burst=row["rate_burst"]
        )
    return PlanCreate.model_construct(
        name=row["name"],
        currency=row["currency"],
        billing=row["billing"],
        rate_limit=limit,
        public=row["public"],
        description=row["description"],
        monthly_fee=amounts.join(row["monthly_fee_high"], row["monthly_fee"]),
        trial_credit=TrialCredit.model_validate_json(trial) if trial else None,
        prices=prices,
    )


async def _unknown(connection: AsyncConnection) -> list[str]:
    """Check that accounts were on the plans whose fees they were billed."""
    on_it = and_(
        AccountPlan.account == Invoice.account, AccountPlan.plan_id == InvoiceLine.price_id
    )
    found = await connection.execute(
        select(Invoice.number)
        .join(InvoiceLine, InvoiceLine.invoice_id == Invoice.id)
        .outerjoin(AccountPlan, on_it)
        .where(_IS_FEE, AccountPlan.id.is_(None))
        .order_by(Invoice.number)
    )
    return [f"invoices: {number}: bills a plan that the account was not on" for (number,) in found]


async def _lines(connection: AsyncConnection, charging: Collection[str]) -> list[str]:
    """Check the fee lines of invoices against the days that accounts were on their plans.

    In a month that the version before closed, fees may be missing.
    """
    found = await connection.execute(
        select(Period.id, Period.bills_fees).where(Period.invoiced_at.is_not(None))
    )
    months = {period: bills_fees for period, bills_fees in found}
    differences: list[str] = []
    last = ""
    while accounts := await _accounts(connection, charging, after=last):
        last = accounts[-1]
        billed = await _billed(connection, accounts)
        owed = await _owed(
            connection, accounts, months={*months, *(each.period for each in billed)}
        )
        for key in sorted(billed.keys() | owed.keys()):
            if key not in billed and not months.get(key.period):
                continue
            if billed.get(key) != owed.get(key):
                differences.append(
                    f"invoices: account {key.account}, {key.period}: the fee of plan {key.plan_id} "
                    f"is {format_amount(billed.get(key, 0))}, where its days cost "
                    f"{format_amount(owed.get(key, 0))}"
                )
    return differences


async def _accounts(
    connection: AsyncConnection, charging: Collection[str], *, after: str
) -> list[str]:
    found = await connection.execute(
        select(AccountPlan.account)
        .distinct()
        .where(AccountPlan.plan_id.in_(sorted(charging)), AccountPlan.account > after)
        .order_by(AccountPlan.account)
        .limit(_ACCOUNTS_AT_ONCE)
    )
    return list(found.scalars())


async def _billed(connection: AsyncConnection, accounts: Collection[str]) -> dict[_Key, int]:
    found = await connection.execute(
        select(
            Invoice.account,
            Invoice.period,
            InvoiceLine.price_id,
            InvoiceLine.amount_high,
            InvoiceLine.amount_low,
        )
        .join(InvoiceLine, InvoiceLine.invoice_id == Invoice.id)
        .where(_IS_FEE, Invoice.account.in_(sorted(accounts)))
    )
    return {_Key(*key): amounts.join(high, low) for *key, high, low in found}


async def _owed(
    connection: AsyncConnection, accounts: Collection[str], *, months: Collection[str]
) -> dict[_Key, int]:
    if not months:
        return {}
    found = await connection.execute(
        select(Account.id, Account.currency).where(Account.id.in_(sorted(accounts)))
    )
    currencies = {account: currency for account, currency in found}
    end = start_of(next_period(max(months)))
    changes = await read_changes(connection, accounts=accounts, before=end)
    return {
        _Key(account, period, fee.plan.id): fee.amount
        for account, mine in changes.items()
        if account in currencies
        for period in months
        for fee in fees_of(mine, period=period, currency=currencies[account])
    }


async def _trials(connection: AsyncConnection) -> list[str]:
    """Check that trials are the credit that was granted and taken back for them."""
    credited = _part(Credit.account, exact(Credit.amount_low, high=Credit.amount_high)).where(
        Credit.by == TRIAL
    )
    granted = exact(Trial.amount_low, high=Trial.amount_high).minus()
    expired = exact(Trial.expired_low, high=Trial.expired_high)
    both = union_all(
        credited,
        _part(Trial.account, granted).where(Trial.granted),
        _part(Trial.account, expired),
    ).subquery()
    total = labelled(both.c, "amount").total().named("amount")
    sums = select(both.c.account, *total).group_by(both.c.account).subquery()
    found = await connection.execute(differing(sums, "amount").order_by(text("account")))
    return [
        f"trials: account {row.account}: differs from its credit by "
        f"{format_amount(labelled(row, 'amount').value())}"
        for row in found
    ]


def _part(account: Any, amount: Exact) -> Select[Any]:
    return select(account.label("account"), *amount.named("amount"))
