"""`/recalls`, `/adjustments`, and the credit notes of invoices."""

from typing import Annotated

from fastapi import Depends

from services.billing.archives.reading import AppArchives
from services.billing.corrections import adjustments, credit_notes
from services.billing.corrections import recalls as service
from services.billing.corrections.adjustments import (
    AdjustmentCreate,
    AdjustmentRead,
    NothingToAdjust,
)
from services.billing.corrections.credit_notes import (
    CreditNoteCreate,
    CreditNoteList,
    CreditNoteRead,
    CreditTooLarge,
)
from services.billing.corrections.recalls import (
    AlreadyRecalled,
    RecallCreate,
    RecallList,
    RecallRead,
)
from services.billing.corrections.selecting import Charged
from services.billing.idempotency import ONCE_ERRORS, AdminCall
from services.billing.invoices.router import AppBooks
from services.billing.invoices.schemas import InvoiceRead
from services.billing.invoices.service import InvoiceNotFound, get_invoice
from services.common.db.database import AppDatabase, Snapshot
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
    responses=error_responses(*_errors, *ONCE_ERRORS, AlreadyRecalled),
)
async def create_recall(
    body: RecallCreate,
    call: AdminCall,
) -> RecallRead:
    """Take back every request answered by a version, including those that arrive later.

    Prepaid charges return to the balance within seconds; postpaid ones reduce the next invoice.
    """
    return await call.run(
        "/recalls",
        body=body,
        response=RecallRead,
        work=lambda session: service.create(session, recall=body, by=call.author, now=call.now),
    )


@router.get(
    "/recalls",
    dependencies=[Depends(RequireScope("admin"))],
    responses=error_responses(*_errors),
)
async def list_recalls(session: Snapshot) -> RecallList:
    """List the recalls, newest first."""
    return await service.list_recalls(session)


@router.post(
    "/adjustments",
    status_code=201,
    responses=error_responses(*_errors, *ONCE_ERRORS, NothingToAdjust),
)
async def create_adjustment(
    body: AdjustmentCreate,
    call: AdminCall,
    archives: AppArchives,
    books: AppBooks,
) -> AdjustmentRead:
    """Take back events, by their ids or by a filter; each event at most once.

    Prepaid charges return to the balance at once. Postpaid charges reduce the month's invoice or,
    if that is issued, are given back by a credit note.
    """
    events: list[Charged] = []

    async def select() -> None:
        events.extend(await adjustments.select_events(call.database, body, archives))

    return await call.run(
        "/adjustments",
        body=body,
        response=AdjustmentRead,
        prepare=select,
        work=lambda session: adjustments.create(
            session, adjustment=body, events=events, by=call.author, books=books, now=call.now
        ),
    )


async def _invoice(
    id: str, caller: Annotated[Caller, Depends(RequireScope("admin"))], database: AppDatabase
) -> InvoiceRead:
    """Find the invoice before the body is validated."""
    async with database.snapshot() as session:
        return await get_invoice(session, account=None, invoice_id=id)


@router.post(
    "/invoices/{id}/credit-notes",
    status_code=201,
    responses=error_responses(*_errors, *ONCE_ERRORS, InvoiceNotFound, CreditTooLarge),
)
async def create_credit_note(
    invoice: Annotated[InvoiceRead, Depends(_invoice)],
    body: CreditNoteCreate,
    call: AdminCall,
    books: AppBooks,
) -> CreditNoteRead:
    """Give an invoice back: an amount, some lines, or else all that is left of it.

    Amounts include tax. What was paid from a prepaid balance returns there.
    """
    return await call.run(
        f"/invoices/{invoice.id}/credit-notes",
        body=body,
        response=CreditNoteRead,
        work=lambda session: credit_notes.create(
            session, invoice_id=invoice.id, note=body, by=call.author, books=books, now=call.now
        ),
    )


@router.get("/invoices/{id}/credit-notes", responses=error_responses(*_errors, InvoiceNotFound))
async def list_credit_notes(
    id: str, caller: Annotated[Caller, Depends(RequireScope("usage:read"))], session: Snapshot
) -> CreditNoteList:
    """List the credit notes of an invoice, oldest first."""
    account = None if "admin" in caller.scopes else caller.account
    invoice = await get_invoice(session, account=account, invoice_id=id)
    return await credit_notes.list_notes(session, invoice_id=invoice.id)
