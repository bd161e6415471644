"""`/billing-runs`, `/invoices` and `/billing-profile`."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from services.billing.callers import Account, ManagedAccount
from services.billing.currencies import UnknownCurrency
from services.billing.fields import PeriodId
from services.billing.invoices import closing, service
from services.billing.invoices.closing import MonthNotOver, UsageMissing
from services.billing.invoices.issuing import Books
from services.billing.invoices.parties import ProfileUpdate
from services.billing.invoices.pdfs import InvoicePdfs
from services.billing.invoices.rendering import as_csv, as_html
from services.billing.invoices.schemas import (
    BillingRunCreate,
    BillingRunRead,
    InvoicePage,
    InvoicePreview,
    InvoiceRead,
)
from services.billing.invoices.service import InvoiceNotFound, MonthClosed, ProfileNotFound
from services.billing.plans.default import DefaultPlanId
from services.common.db.database import AppDatabase, Snapshot
from services.common.db.retrying import in_transaction
from services.common.errors import (
    BodyInvalid,
    InsufficientScope,
    Unauthenticated,
    Unavailable,
    error_responses,
)
from services.common.http.negotiation import choose_media_type
from services.common.http.routing import new_router
from services.common.identity.caller import Caller
from services.common.identity.guards import RequireScope

router = new_router(tag="invoices")

_errors = (Unauthenticated, InsufficientScope, BodyInvalid, Unavailable)
_FORMATS = ("application/json", "text/html", "text/csv", "application/pdf")


async def _books(request: Request) -> Books:
    books: Books = request.app.state.books
    return books


AppBooks = Annotated[Books, Depends(_books)]


async def _pdfs(request: Request) -> InvoicePdfs:
    pdfs: InvoicePdfs = request.app.state.invoice_pdfs
    return pdfs


AppPdfs = Annotated[InvoicePdfs, Depends(_pdfs)]


@router.post(
    "/billing-runs",
    dependencies=[Depends(RequireScope("admin"))],
    responses=error_responses(*_errors, MonthNotOver, UsageMissing),
)
async def run_billing(
    body: BillingRunCreate, database: AppDatabase, books: AppBooks
) -> BillingRunRead:
    """Close a month and issue its invoices. A repeat returns the same result.

    It is refused while a month is not over, and while usage is missing (`GET /sources`) unless
    `force` is true and a `reason` is given. A run that was interrupted continues when repeated.
    Accounts that could not get an invoice are in `failed`, and a repeat tries them again.
    """
    if body.force and body.reason is None:
        raise BodyInvalid([{"loc": ["body", "reason"], "msg": "Give a reason with `force`."}])
    return await closing.run(
        database,
        period=body.period,
        forced_reason=body.reason if body.force else None,
        books=books,
        now=datetime.now(UTC),
    )


@router.get("/invoices", responses=error_responses(*_errors))
async def list_invoices(
    account: Account,
    session: Snapshot,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> InvoicePage:
    """List an account's invoices, newest first."""
    return await service.list_invoices(session, account=account, cursor=cursor, limit=limit)


@router.get(
    "/invoices/preview",
    responses=error_responses(*_errors, InvoiceNotFound, MonthClosed, UnknownCurrency),
)
async def preview_invoice(
    account: ManagedAccount,
    session: Snapshot,
    books: AppBooks,
    default_plan: DefaultPlanId,
    period: PeriodId | None = None,
) -> InvoicePreview:
    """Return the open month as an invoice would be now; it has no number.

    With `period`, another month that is not closed yet.
    """
    return await service.preview(
        session,
        account=account,
        period=period,
        books=books,
        default_plan=default_plan,
        now=datetime.now(UTC),
    )


@router.get(
    "/invoices/{id}",
    response_model=InvoiceRead,
    responses=error_responses(*_errors, InvoiceNotFound)
    | {200: {"content": {each: {} for each in _FORMATS[1:]}}},
)
async def get_invoice(
    request: Request,
    id: str,
    caller: Annotated[Caller, Depends(RequireScope("usage:read"))],
    database: AppDatabase,
    pdfs: AppPdfs,
) -> InvoiceRead | Response:
    """Return an invoice; `Accept` chooses JSON, CSV, a page to print, or PDF with Factur-X XML."""
    account = None if "admin" in caller.scopes else caller.account
    async with database.snapshot() as session:
        invoice = await service.get_invoice(session, account=account, invoice_id=id)
    wanted = choose_media_type(",".join(request.headers.getlist("accept")), _FORMATS)
    if wanted == "text/html":
        return Response(as_html(invoice), media_type=wanted)
    if wanted == "text/csv":
        return _file(as_csv(invoice), invoice.number, wanted)
    if wanted == "application/pdf":
        return _file(await pdfs.get(invoice), invoice.number, wanted)
    return invoice


def _file(content: str | bytes, number: str, media_type: str) -> Response:
    name = f"{number}.{media_type.rpartition('/')[2]}"
    headers = {"Content-Disposition": f'inline; filename="{name}"'}
    return Response(content, media_type=media_type, headers=headers)


@router.get("/billing-profile", responses=error_responses(*_errors, ProfileNotFound))
async def read_profile(account: ManagedAccount, session: Snapshot) -> ProfileUpdate:
    """Return who an account's invoices are addressed to."""
    return await service.get_profile(session, account=account)


@router.put("/billing-profile", responses=error_responses(*_errors))
async def put_profile(
    account: ManagedAccount, body: ProfileUpdate, database: AppDatabase
) -> ProfileUpdate:
    """Store who an account's invoices are addressed to, from the next invoice on."""
    now = datetime.now(UTC)
    return await in_transaction(
        database,
        lambda session: service.put_profile(session, account=account, profile=body, now=now),
    )
