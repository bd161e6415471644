"""`/recalls`."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends

from services.billing.corrections import recalls as service
from services.billing.corrections.recalls import (
    AlreadyRecalled,
    RecallCreate,
    RecallList,
    RecallRead,
)
from services.billing.database import AppDatabase
from services.billing.idempotency import (
    CallKey,
    IdempotencyKey,
    KeyMissing,
    KeyReused,
    StillRunning,
    run_once,
)
from services.common.db.database import Snapshot
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.caller import Caller
from services.common.identity.guards import RequireScope

router = new_router(tag="corrections")

_errors = (Unauthenticated, InsufficientScope, BodyInvalid, Unavailable)


@router.post(
    "/recalls",
    status_code=201,
    responses=error_responses(*_errors, KeyMissing, AlreadyRecalled, StillRunning, KeyReused),
)
async def create_recall(
    body: RecallCreate,
    key: IdempotencyKey,
    caller: Annotated[Caller, Depends(RequireScope("admin"))],
    database: AppDatabase,
) -> RecallRead:
    """Take back every request answered by a version, also those that arrive later.

    Prepaid charges return to the balance within seconds; postpaid ones reduce the next invoice.
    """
    now = datetime.now(UTC)
    return await run_once(
        database,
        call=CallKey(caller.account, key, "/recalls"),
        body=body,
        response=RecallRead,
        work=lambda session: service.create(session, recall=body, by=caller.account, now=now),
        now=now,
    )


@router.get(
    "/recalls",
    dependencies=[Depends(RequireScope("admin"))],
    responses=error_responses(*_errors),
)
async def list_recalls(session: Snapshot) -> RecallList:
    """List the recalls, newest first."""
    return await service.list_recalls(session)
