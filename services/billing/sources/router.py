"""`/sources`: the journals usage comes from."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Path

from services.billing.database import Store, in_transaction
from services.billing.leases.sweeper import return_slices
from services.billing.sources import service
from services.billing.sources.service import SourceList
from services.common.contracts import JournalId, SourceReport
from services.common.db import Snapshot
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http import new_router
from services.common.identity import RequireScope

router = new_router(prefix="/sources", tag="sources")

_refusals = error_responses(Unauthenticated, InsufficientScope, BodyInvalid, Unavailable)


@router.put(
    "/{journal}",
    status_code=204,
    dependencies=[Depends(RequireScope("billing:write"))],
    responses=_refusals,
)
async def report_source(
    journal: Annotated[JournalId, Path()], body: SourceReport, database: Store
) -> None:
    """Report how far a journal has come, in durable lines, and whether it has ended.

    Every 30 s even when idle, at stop, and by the process that ships what a dead one left. Credit
    that the process has reserved returns to its accounts as soon as the journal is closed and all
    of it has arrived.
    """
    now = datetime.now(UTC)
    has_ended = await in_transaction(
        database,
        lambda session: service.report(session, journal_id=journal, said=body, now=now),
    )
    if has_ended:
        await return_slices(database, journal=journal, now=now)


@router.get("", dependencies=[Depends(RequireScope("admin"))], responses=_refusals)
async def list_sources(session: Snapshot) -> SourceList:
    """Every journal: how much of it has arrived, and what is missing."""
    return SourceList(sources=await service.list_sources(session, now=datetime.now(UTC)))
