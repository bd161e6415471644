"""`GET /audit`: who did what, when and from where."""

from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel, Field

from services.auth.audit import service
from services.auth.audit.chain import entry_document
from services.auth.audit.requests import Failures
from services.auth.callers import REQUIRE_ADMIN, LoginNeeded
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.routing import new_router

router = new_router(tag="audit")

MAX_PAGE = 1000


class AuditEntryRead(BaseModel):
    id: int = Field(description="Position in the chain, from 1.")
    time: str = Field(json_schema_extra={"format": "date-time"})
    actor: str | None = Field(description="Id of the user or client, or `operator`.")
    action: str
    target: str | None = Field(description="Id of what was acted on.")
    address: str | None = Field(description="IP address of the request.")
    hash: str = Field(
        description="Hex SHA-256 of the previous entry's `hash` (64 zeros for the first entry) "
        "and this entry without `hash`, as canonical JSON (RFC 8785)."
    )


class AuditPage(BaseModel):
    entries: list[AuditEntryRead]
    next_cursor: str | None = Field(description="Null on the last page.")


@router.get(
    "/audit",
    response_model=AuditPage,
    dependencies=[REQUIRE_ADMIN],
    responses=error_responses(
        Unauthenticated, InsufficientScope, LoginNeeded, BodyInvalid, Unavailable
    ),
)
async def list_audit_entries(
    request: Request,
    failures: Failures,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """List the audit log, newest first. Each entry's hash covers all entries before it."""
    database = request.app.state.database
    before = _parse_cursor(cursor) if cursor else None
    await service.store_failures(database, failures)
    await service.seal(database)
    async with database.snapshot() as session:
        entries = await service.list_entries(session, before=before, limit=limit + 1)
    page = entries[:limit]
    return {
        "entries": [entry_document(entry) | {"hash": entry.hash} for entry in page],
        "next_cursor": str(page[-1].id) if len(entries) > limit else None,
    }


def _parse_cursor(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 18:
        raise BodyInvalid([{"loc": ["query", "cursor"], "msg": "Invalid cursor."}])
    return int(cursor)
