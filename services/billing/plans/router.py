"""`/plans` and `/accounts/{account}/plan`."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Path

from services.billing.ledger.accounts import CurrencyFixed
from services.billing.plans import service
from services.billing.plans.default import DefaultPlanId
from services.billing.plans.preview import PlanPreviewCreate, PlanPreviewRead, preview
from services.billing.plans.schemas import (
    PlanAssign,
    PlanAssigned,
    PlanCreate,
    PlanList,
    PlanRead,
)
from services.common.contracts import AccountId
from services.common.db.database import AppDatabase, Snapshot
from services.common.db.retrying import in_transaction
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.guards import OptionalCaller, RequireScope, public

router = new_router(tag="plans")

_admin = [Depends(RequireScope("admin"))]


@router.get(
    "/plans",
    responses=error_responses(Unauthenticated, Unavailable),
    openapi_extra={"security": [{}]},  # the token is optional
)
@public
async def list_plans(
    caller: OptionalCaller,
    session: Snapshot,
    default_plan: DefaultPlanId,
) -> PlanList:
    """List the plans, oldest first.

    Without a token, the public plans; with an account's token, also its own plans; for an
    administrator, all plans. Amounts are decimal strings in the plan's currency.
    """
    plans = await service.list_plans(
        session, caller=caller, default_plan=default_plan, now=datetime.now(UTC)
    )
    return PlanList(plans=plans)


@router.post(
    "/plans",
    status_code=201,
    dependencies=_admin,
    responses=error_responses(Unauthenticated, InsufficientScope, BodyInvalid, Unavailable),
)
async def create_plan(body: PlanCreate, database: AppDatabase) -> PlanRead:
    """Store a plan. Its id is derived from its content, so a repeat returns the same plan."""
    now = datetime.now(UTC)
    return await in_transaction(
        database, lambda session: service.store_plan(session, plan=body, now=now)
    )


@router.post(
    "/plans/preview",
    dependencies=_admin,
    responses=error_responses(
        Unauthenticated, InsufficientScope, service.PlanNotFound, BodyInvalid, Unavailable
    ),
)
async def preview_plan(body: PlanPreviewCreate, database: AppDatabase) -> PlanPreviewRead:
    """Replay a month's events under a plan: what each account paid, and would have paid."""
    return await preview(database, wanted=body)


@router.put(
    "/accounts/{account}/plan",
    dependencies=_admin,
    responses=error_responses(
        Unauthenticated,
        InsufficientScope,
        service.PlanNotFound,
        CurrencyFixed,
        BodyInvalid,
        Unavailable,
    ),
)
async def assign_plan(
    account: Annotated[AccountId, Path()], body: PlanAssign, database: AppDatabase
) -> PlanAssigned:
    """Put an account on a plan, from `effective_from` (not in the past) or from now on."""
    now = datetime.now(UTC)
    starts = await in_transaction(
        database,
        lambda session: service.assign_plan(
            session,
            account=account,
            plan_id=body.plan,
            effective_from=body.effective_from,
            now=now,
        ),
    )
    return PlanAssigned(account=account, plan=body.plan, effective_from=starts)
