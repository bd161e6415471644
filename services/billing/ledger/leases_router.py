"""`POST /leases`: what a process may do for which account."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Body, Depends, Request, Response
from pydantic import TypeAdapter

from services.billing.ledger import leases as service
from services.billing.plans.default import DefaultPlanId
from services.common.contracts import MAX_LEASES_PER_CALL, LeaseRequest, LeaseTerms
from services.common.db.database import AppDatabase
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.guards import RequireScope

router = new_router(tag="leases")

_LEASES = TypeAdapter(list[LeaseTerms])


@router.post(
    "/leases",
    response_model=list[LeaseTerms],
    dependencies=[Depends(RequireScope("billing:write"))],
    responses=error_responses(Unauthenticated, InsufficientScope, BodyInvalid, Unavailable),
)
async def request_leases(
    request: Request,
    requests: Annotated[list[LeaseRequest], Body(max_length=MAX_LEASES_PER_CALL)],
    database: AppDatabase,
    default_plan: DefaultPlanId,
) -> list[LeaseTerms] | Response:
    """Return the terms of each requested account, in the order of the requests.

    Prices are those of the account's next request: with tiers, of the tier it has reached. A
    prepaid account's credit is granted in reservations: `granted` and `spent` are cumulative per
    account and journal, and the process may spend the difference on its own. A request whose
    `sequence` is not above the last one changes nothing and returns the current state, so a lost
    response costs nothing. The rate limit is this process's share of the account's.
    """
    leases = await service.request_leases(
        database, requests=requests, default_plan=default_plan, now=datetime.now(UTC)
    )
    if b'"ask_no"' in await request.body():
        return _in_former_words(leases)
    return leases


def _in_former_words(leases: list[LeaseTerms]) -> Response:
    """Return a response that a process of the version before understands, during an upgrade."""
    body = _LEASES.dump_json(leases)
    return Response(
        body.replace(b'"status":"reserved_elsewhere"', b'"status":"held_elsewhere"'),
        media_type="application/json",
    )
