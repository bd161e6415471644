"""`/revenue`: what all accounts were charged."""

from datetime import UTC, datetime

from fastapi import Depends

from services.billing.fields import PeriodId
from services.billing.periods import period_of
from services.billing.usage import revenue
from services.billing.usage.revenue import RevenueRead
from services.common.db.database import Snapshot
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.guards import RequireScope

router = new_router(tag="usage")


@router.get(
    "/revenue",
    dependencies=[Depends(RequireScope("admin"))],
    responses=error_responses(Unauthenticated, InsufficientScope, BodyInvalid, Unavailable),
)
async def read_revenue(session: Snapshot, period: PeriodId | None = None) -> RevenueRead:
    """Return a month's revenue by currency, by default this month's.

    It is what all accounts were charged for the month's usage, less what was taken back, before tax
    and invoices' rounding. It comes from sums, so that it takes the same time however many requests
    there were.
    """
    return await revenue.read_revenue(session, period=period or period_of(datetime.now(UTC)))
