"""`/usage`: what an account used, and the receipts."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.responses import StreamingResponse

from services.billing.callers import Account, OtherAccount, own_or_other
from services.billing.database import Store
from services.billing.plans.default import DefaultPlanId
from services.billing.usage import service
from services.billing.usage.schemas import ReceiptPage, ReceiptRead, UsageRead
from services.billing.usage.service import MAX_PAGE, GroupBy, ReceiptNotFound
from services.common.db import Snapshot
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http import new_router
from services.common.identity import AnyCaller
from services.common.times import Instant

router = new_router(prefix="/usage", tag="usage")

_refusals = (Unauthenticated, InsufficientScope, BodyInvalid, Unavailable)


def _whose_receipt(caller: AnyCaller, account: OtherAccount = None) -> str | None:
    """The account whose receipt may be read; None for any: a service asks what it has billed."""
    if "billing:write" in caller.scopes and account is None:
        return None
    if "usage:read" not in caller.scopes:
        raise InsufficientScope("usage:read")
    return own_or_other(caller, account)


Since = Annotated[Instant | None, Query(alias="from", description="First moment, RFC 3339.")]
Until = Annotated[Instant | None, Query(alias="to", description="First moment after, RFC 3339.")]


@router.get("", responses=error_responses(*_refusals))
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
    responses=error_responses(*_refusals) | {200: {"content": {"text/csv": {}}}},
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


@router.get("/events/{id}", responses=error_responses(*_refusals, ReceiptNotFound))
async def get_receipt(
    id: str, account: Annotated[str | None, Depends(_whose_receipt)], session: Snapshot
) -> ReceiptRead:
    """The receipt for one event, by the id that its prediction answered in `X-Usage-Event`.

    The scope `usage:read` finds one's own; `billing:write` finds any, so that a service can tell
    whether it has billed a request before.
    """
    return await service.get_receipt(session, account=account, event_id=id)
