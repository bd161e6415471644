"""`/usage`: what an account used, and the receipts."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter, ValidationError

from services.billing.database import Store
from services.billing.plans.default import DefaultPlanId
from services.billing.usage import service
from services.billing.usage.schemas import ReceiptPage, ReceiptRead, UsageRead
from services.billing.usage.service import MAX_PAGE, GroupBy, ReceiptNotFound
from services.common.contracts import AccountId, Instant
from services.common.db import Snapshot
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    documents,
)
from services.common.http import new_router
from services.common.identity import Caller, Needs

router = new_router(prefix="/usage", tag="usage")

_account_id = TypeAdapter(AccountId)
_refusals = (Unauthenticated, InsufficientScope, BodyInvalid, Unavailable)


def _account(
    caller: Annotated[Caller, Depends(Needs("usage:read"))],
    account: Annotated[
        str | None, Query(description="Another account; needs the scope `admin`.")
    ] = None,
) -> str:
    """Whose usage is read. The scope is checked before the id, hence a plain text above."""
    if account is None:
        return caller.account
    if "admin" not in caller.scopes:
        raise InsufficientScope("admin")
    try:
        return _account_id.validate_python(account)
    except ValidationError as error:
        raise BodyInvalid([{"loc": ["query", "account"], "msg": "This is no UUID."}]) from error


Account = Annotated[str, Depends(_account)]
Since = Annotated[Instant | None, Query(alias="from", description="First moment, RFC 3339.")]
Until = Annotated[Instant | None, Query(alias="to", description="First moment after, RFC 3339.")]


@router.get("", responses=documents(*_refusals))
async def read_usage(
    account: Account,
    session: Snapshot,
    default_plan: DefaultPlanId,
    since: Since = None,
    until: Until = None,
    group_by: GroupBy = "hour",
) -> UsageRead:
    """What an account used within `[from, to)`, in total and in buckets.

    `from` defaults to the start of the UTC month, `to` to now. Hours, days and months are UTC, cut
    to the window.
    """
    return await service.read_usage(
        session,
        account=account,
        since=since,
        until=until,
        group_by=group_by,
        default_plan=default_plan,
        now=datetime.now(UTC),
    )


@router.get(
    "/events",
    response_model=ReceiptPage,
    responses=documents(*_refusals) | {200: {"content": {"text/csv": {}}}},
)
async def list_receipts(
    request: Request,
    account: Account,
    database: Store,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: str | None = None,
) -> ReceiptPage | StreamingResponse:
    """The receipts, newest first: one for each billed request.

    `Accept: text/csv` streams all of them, whatever `limit` and `cursor` say.
    """
    if _wants_csv(request.headers.get("accept", "")):
        lines = service.stream_csv(database, account=account, since=since, until=until)
        return StreamingResponse(lines, media_type="text/csv")
    after = service.parse_cursor(cursor) if cursor else None
    async with database.snapshot() as session:
        return await service.read_receipts(
            session, account=account, since=since, until=until, after=after, limit=limit
        )


def _wants_csv(accept: str) -> bool:
    return any(part.partition(";")[0].strip() == "text/csv" for part in accept.lower().split(","))


@router.get("/events/{id}", responses=documents(*_refusals, ReceiptNotFound))
async def get_receipt(id: str, account: Account, session: Snapshot) -> ReceiptRead:
    """The receipt for one event, by the id that its prediction answered in `X-Usage-Event`."""
    return await service.get_receipt(session, account=account, event_id=id)
