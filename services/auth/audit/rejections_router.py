"""`POST /rejections`: the credentials that the other services have rejected."""

from typing import Annotated

from fastapi import Depends, Response

from services.auth.audit.failures import RESERVE
from services.auth.audit.requests import Failures
from services.auth.callers import check_active
from services.common.contracts import RejectionReport
from services.common.db.database import AppDatabase
from services.common.errors import (
    BodyInvalid,
    BodyTooLarge,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.caller import Caller
from services.common.identity.guards import RequireScope

router = new_router(tag="audit")


@router.post(
    "/rejections",
    status_code=204,
    response_class=Response,
    responses=error_responses(
        Unauthenticated, InsufficientScope, BodyTooLarge, BodyInvalid, Unavailable
    ),
)
async def report_rejections(
    report: RejectionReport,
    caller: Annotated[Caller, Depends(RequireScope("billing:write"))],
    database: AppDatabase,
    failures: Failures,
) -> Response:
    """Add credentials that a service has rejected to the audit log, as `token_rejected` with the
    service as target. Like other failures, they are limited to one a second for long."""
    async with database.snapshot() as session:
        await check_active(session, caller=caller)
    for each in report.rejections:
        failures.note(
            "token_rejected",
            address=each.address,
            target=caller.client_id,
            time=each.time,
            reserve=RESERVE,
        )
    failures.omit(report.omitted)
    return Response(status_code=204)
