"""`/plans`, `/accounts/{account}/plan` and `/subscription`."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Path

from services.billing.archives.reading import AppArchives
from services.billing.callers import ManagedAccount
from services.billing.ledger.accounts import CurrencyFixed
from services.billing.plans import service, subscriptions
from services.billing.plans.default import DefaultPlanId
from services.billing.plans.preview import PlanPreviewCreate, PlanPreviewRead, preview
from services.billing.plans.schemas import (
    PlanAssign,
    PlanAssigned,
    PlanCreate,
    PlanList,
    PlanRead,
)
from services.billing.plans.subscriptions import (
    CreditLeft,
    SubscriptionNotFound,
    SubscriptionRead,
    SubscriptionUpdate,
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
from services.common.identity.caller import Caller
from services.common.identity.guards import OptionalCaller, RequireScope, public

router = new_router(tag="plans")

_errors = (Unauthenticated, InsufficientScope, BodyInvalid, Unavailable)

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
async def preview_plan(
    body: PlanPreviewCreate, database: AppDatabase, archives: AppArchives
) -> PlanPreviewRead:
    """Replay a month's events under a plan: what each account paid, and would have paid."""
    return await preview(database, archives, wanted=body)


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
        lambda session: subscriptions.assign_plan(
            session,
            account=account,
            plan_id=body.plan,
            effective_from=body.effective_from,
            now=now,
        ),
    )
    return PlanAssigned(account=account, plan=body.plan, effective_from=starts)


@router.get("/subscription", responses=error_responses(*_errors, SubscriptionNotFound))
async def read_subscription(
    account: ManagedAccount, session: Snapshot, default_plan: DefaultPlanId
) -> SubscriptionRead:
    """Return the plan that an account is on, since when, its monthly fee, and what follows."""
    return await subscriptions.read_subscription(
        session, account=account, default_plan=default_plan, now=datetime.now(UTC)
    )


@router.put(
    "/subscription",
    responses=error_responses(*_errors, service.PlanNotFound, CurrencyFixed, CreditLeft),
)
async def subscribe(
    account: ManagedAccount,
    body: SubscriptionUpdate,
    caller: Annotated[Caller, Depends(RequireScope("billing:manage"))],
    database: AppDatabase,
    default_plan: DefaultPlanId,
) -> SubscriptionRead:
    """Put an account on a public plan from now on; an administrator may choose any plan.

    Requests that were served keep their price. A monthly fee is charged pro rata by UTC day, with
    the month's invoice: from the first day on a plan to the day before a change. A change that was
    planned for later is forgotten. 409 if prepaid credit is left that the plan would not use.
    """
    now = datetime.now(UTC)
    return await in_transaction(
        database,
        lambda session: subscriptions.subscribe(
            session,
            account=account,
            plan_id=body.plan,
            may_choose_any="admin" in caller.scopes,
            default_plan=default_plan,
            now=now,
        ),
    )


@router.delete("/subscription", status_code=204, responses=error_responses(*_errors, CreditLeft))
async def cancel_subscription(
    account: ManagedAccount, database: AppDatabase, default_plan: DefaultPlanId
) -> None:
    """Put an account on the default plan at once.

    The day of the cancellation is not charged. A change that was planned for later is forgotten.
    """
    now = datetime.now(UTC)
    await in_transaction(
        database,
        lambda session: subscriptions.cancel(
            session, account=account, default_plan=default_plan, now=now
        ),
    )
