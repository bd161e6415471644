"""`/sources`: the journals that usage events come from."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Path

from services.billing.ledger.sweeper import reclaim_reservations
from services.billing.sources import service
from services.billing.sources.service import SourceList
from services.common.contracts import JournalId, SourceReport
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
from services.common.identity.guards import RequireScope

router = new_router(prefix="/sources", tag="sources")

_errors = error_responses(Unauthenticated, InsufficientScope, BodyInvalid, Unavailable)


@router.put(
    "/{journal}",
    status_code=204,
    dependencies=[Depends(RequireScope("billing:write"))],
    responses=_errors,
)
async def report_source(
    journal: Annotated[JournalId, Path()], body: SourceReport, database: AppDatabase
) -> None:
    """Report how many durable lines a journal has, and whether it is closed.

    Sent every 30 s even when idle, at stop, and by the process that ships a dead run's journal. The
    process's reserved credit returns to the accounts once the journal is closed and all of its
    events have arrived.
    """
    now = datetime.now(UTC)
    has_ended = await in_transaction(
        database,
        lambda session: service.record_report(session, journal_id=journal, report=body, now=now),
    )
    if has_ended:
        await reclaim_reservations(database, journal=journal, now=now)


@router.get("", dependencies=[Depends(RequireScope("admin"))], responses=_errors)
async def list_sources(session: Snapshot) -> SourceList:
    """List every journal with what has arrived and what is missing."""
    return SourceList(sources=await service.list_sources(session, now=datetime.now(UTC)))
