"""`GET /events/conflicts`: repeats of an event's id that differ from the first one."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from services.billing.cursors import from_cursor, to_cursor
from services.billing.events import repository
from services.billing.events.repository import ConflictKey
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

router = new_router(prefix="/events/conflicts", tag="events")

MAX_PAGE = 1000


class ConflictRead(BaseModel):
    """A repeat that was not billed, because the event that came first under its id stands."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    source: str
    account: str = Field(description="The `subject` of the repeat.")
    model: str
    rows: int
    received_at: datetime = Field(description="When the repeat first arrived.")


class ConflictPage(BaseModel):
    conflicts: list[ConflictRead]
    next_cursor: str | None = Field(description="Null on the last page.")


@router.get(
    "",
    dependencies=[Depends(RequireScope("admin"))],
    responses=error_responses(Unauthenticated, InsufficientScope, BodyInvalid, Unavailable),
)
async def list_conflicts(
    session: Snapshot,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: str | None = None,
) -> ConflictPage:
    """List the repeats with another account, model or number of rows than the event that stands,
    each once, in the order of their ids."""
    after = ConflictKey(*from_cursor(cursor, parts=len(ConflictKey._fields))) if cursor else None
    found = await repository.list_conflicts(session, after=after, limit=limit + 1)
    page = found[:limit]
    last = page[-1] if len(found) > limit else None
    return ConflictPage(
        conflicts=[ConflictRead.model_validate(each) for each in page],
        next_cursor=to_cursor(last.id, last.source, last.fingerprint) if last else None,
    )
