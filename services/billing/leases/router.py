"""`POST /leases`: what the processes that answer requests may do for which account."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Body, Depends

from services.billing.database import Store
from services.billing.leases import service
from services.billing.plans.default import DefaultPlanId
from services.common.contracts import MAX_ASKS_PER_CALL, LeaseAsk, LeaseTerms
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http import new_router
from services.common.identity import RequireScope

router = new_router(tag="leases")


@router.post(
    "/leases",
    dependencies=[Depends(RequireScope("billing:write"))],
    responses=error_responses(Unauthenticated, InsufficientScope, BodyInvalid, Unavailable),
)
async def take_leases(
    asks: Annotated[list[LeaseAsk], Body(max_length=MAX_ASKS_PER_CALL)],
    database: Store,
    default_plan: DefaultPlanId,
) -> list[LeaseTerms]:
    """The terms of each account asked for, in the order of the asks.

    Prices are those of the account's next request: with tiers, of the tier it has reached. A
    prepaid account's money is granted in slices: `granted` and `spent` are cumulative per account
    and journal, and what was granted and not spent may be spent without asking. An ask whose
    `ask_no` is not above the last one changes nothing and is answered with the present state, so
    a lost reply costs nothing. The rate limit is this process's share of the account's.
    """
    return await service.take_leases(
        database, asks=asks, default_plan=default_plan, now=datetime.now(UTC)
    )
