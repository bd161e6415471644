"""`/usage`: the usage and receipts of accounts."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.billing.archives.reading import AppArchives
from services.billing.callers import Account, OtherAccount, own_or_other
from services.billing.fields import PeriodId
from services.billing.periods import period_of
from services.billing.plans.default import DefaultPlanId
from services.billing.receipts.router import AppReceiptKeys
from services.billing.usage import service
from services.billing.usage.days import MAX_ACCOUNTS, AccountUsages, read_days
from services.billing.usage.grouping import GroupBy
from services.billing.usage.schemas import (
    ReceiptPage,
    ReceiptRead,
    UsageRead,
    read_receipt,
    receipt_claims,
)
from services.billing.usage.service import MAX_PAGE, ReceiptNotFound
from services.common.contracts import AccountId
from services.common.db.database import AppDatabase, Snapshot
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.negotiation import choose_media_type
from services.common.http.routing import new_router
from services.common.identity.guards import AnyCaller, RequireScope
from services.common.times import Instant

router = new_router(prefix="/usage", tag="usage")

_JSON, _CSV, _JOSE = "application/json", "text/csv", "application/jose"
_errors = (Unauthenticated, InsufficientScope, BodyInvalid, Unavailable)


async def _whose_receipt(caller: AnyCaller, account: OtherAccount = None) -> str | None:
    """Return the account whose receipts may be read; None for any, as services may."""
    if "billing:write" in caller.scopes and account is None:
        return None
    if "usage:read" not in caller.scopes:
        raise InsufficientScope("usage:read")
    return own_or_other(caller, account)


Since = Annotated[Instant | None, Query(alias="from", description="Start, inclusive (RFC 3339).")]
Until = Annotated[Instant | None, Query(alias="to", description="End, exclusive (RFC 3339).")]


@router.get("", responses=error_responses(*_errors))
async def read_usage(
    account: Account,
    database: AppDatabase,
    archives: AppArchives,
    default_plan: DefaultPlanId,
    since: Since = None,
    until: Until = None,
    group_by: GroupBy = "hour",
) -> UsageRead:
    """Return what an account used within `[from, to)`, in total and in buckets.

    `from` defaults to the start of the UTC month, `to` to now. Hours, days and months are in UTC
    and clipped to the window. `group_by` is `hour`, `day`, `month`, `model`, `version`, `api_key`
    or `tag:<name>`. The buckets add up to the total.
    """
    return await service.read_usage(
        database,
        archives,
        account=account,
        since=since,
        until=until,
        group_by=group_by,
        default_plan=default_plan,
        now=datetime.now(UTC),
    )


@router.get(
    "/accounts",
    dependencies=[Depends(RequireScope("admin"))],
    responses=error_responses(*_errors),
)
async def read_usages(
    session: Snapshot,
    default_plan: DefaultPlanId,
    accounts: Annotated[
        list[AccountId],
        Query(alias="account", min_length=1, max_length=MAX_ACCOUNTS, description="Repeatable."),
    ],
    period: PeriodId | None = None,
) -> AccountUsages:
    """Return what several accounts used in a month, by default this one, in total and by UTC day.

    It comes from sums, so that it takes the same time however many requests there were.
    """
    now = datetime.now(UTC)
    return await read_days(
        session,
        accounts=accounts,
        period=period or period_of(now),
        default_plan=default_plan,
        now=now,
    )


@router.get(
    "/events",
    response_model=ReceiptPage,
    responses=error_responses(*_errors) | {200: {"content": {"text/csv": {}}}},
)
async def list_receipts(
    request: Request,
    account: Account,
    database: AppDatabase,
    archives: AppArchives,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: str | None = None,
) -> ReceiptPage | StreamingResponse:
    """List the receipts, newest first: one per billed request.

    With `Accept: text/csv`, all of them are streamed, and `limit` and `cursor` are ignored.
    """
    if _media_type(request, _JSON, _CSV) == _CSV:
        await archives.check(database, account=account, since=since, until=until)
        lines = service.stream_csv(database, archives, account=account, since=since, until=until)
        return StreamingResponse(lines, media_type=_CSV)
    after = service.parse_cursor(cursor) if cursor else None
    return await service.read_receipts(
        database, archives, account=account, since=since, until=until, after=after, limit=limit
    )


def _media_type(request: Request, *offered: str) -> str:
    """Return the offered media type that a request prefers; the first if it names none."""
    return choose_media_type(",".join(request.headers.getlist("accept")), offered)


@router.get(
    "/events/{id}",
    response_model=ReceiptRead,
    responses=error_responses(*_errors, ReceiptNotFound) | {200: {"content": {_JOSE: {}}}},
)
async def get_receipt(
    id: str,
    request: Request,
    account: Annotated[str | None, Depends(_whose_receipt)],
    database: AppDatabase,
    archives: AppArchives,
    keys: AppReceiptKeys,
) -> ReceiptRead | Response:
    """Return the receipt of one event, by the id in the prediction's `X-Usage-Event` header.

    With the scope `usage:read`, receipts of the caller's own account; with `billing:write`, any
    receipt, so that a service can check whether a request was billed before.

    With `Accept: application/jose`, the receipt is a compact JWS that billing's keys verify.
    """
    event, currency, invoice = await service.find_billed(
        database, archives, account=account, event_id=id
    )
    if _media_type(request, _JSON, _JOSE) == _JOSE:
        return Response(keys.sign(receipt_claims(event, currency=currency)), media_type=_JOSE)
    return read_receipt(event, currency=currency, invoice=invoice)
