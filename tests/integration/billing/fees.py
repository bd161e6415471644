"""Plans with a monthly fee, and calls that put accounts on them at any time, without HTTP."""

from datetime import datetime
from typing import Any

from harness.plans import plan
from harness.usage_events import ADA
from services.billing.plans import subscriptions
from services.billing.plans.schemas import PlanCreate
from services.billing.plans.service import store_plan
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from tests.integration.billing.months import LOCAL_PLAN_ID

BEFORE = datetime.fromisoformat("2026-09-01T00:00:00+00:00")


def fee_plan(monthly_fee: str = "31", **members: Any) -> dict[str, Any]:
    """Return a public plan with the local plan's prices and a monthly fee."""
    given = {"name": "Team", "public": True, "monthly_fee": monthly_fee}
    return plan(**(given | members))


async def store_fee_plan(database: Database, monthly_fee: str = "31", **members: Any) -> str:
    """Store such a plan; return its id."""
    wanted = PlanCreate.model_validate(fee_plan(monthly_fee, **members))
    stored = await in_transaction(
        database, lambda session: store_plan(session, plan=wanted, now=BEFORE)
    )
    return stored.id


async def subscribe(
    database: Database, plan_id: str, now: str | datetime, *, account: str = ADA
) -> None:
    await in_transaction(
        database,
        lambda session: subscriptions.subscribe(
            session,
            account=account,
            plan_id=plan_id,
            may_choose_any=False,
            default_plan=LOCAL_PLAN_ID,
            now=_moment(now),
        ),
    )


async def cancel(database: Database, now: str | datetime, *, account: str = ADA) -> None:
    await in_transaction(
        database,
        lambda session: subscriptions.cancel(
            session, account=account, default_plan=LOCAL_PLAN_ID, now=_moment(now)
        ),
    )


def _moment(now: str | datetime) -> datetime:
    return datetime.fromisoformat(f"{now}+00:00") if isinstance(now, str) else now
