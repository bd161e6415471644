"""Credit notes: an invoice that was issued is corrected by another document, never changed."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.corrections import repository
from services.billing.corrections.left import InvoiceLeft, what_is_left
from services.billing.fields import Reason
from services.billing.invoices.credits import find_credited
from services.billing.invoices.digests import row_digest
from services.billing.invoices.issuing import Books
from services.billing.invoices.numbers import next_number
from services.billing.invoices.reversals import find_reversed
from services.billing.invoices.schemas import InvoiceRead
from services.billing.invoices.service import get_invoice
from services.billing.ledger.accounts import lock_money, store_money
from services.billing.ledger.entries import Posting, make_entry
from services.billing.ledger.posting import post
from services.common.contracts import Amount, format_amount
from services.common.errors import BodyInvalid, ServiceError


class CreditedLine(BaseModel):
    """A line of the invoice, counted from 0, and what of it is given back, including tax."""

    line: int
    amount: str


class LineCreate(BaseModel):
    """A line of the invoice, counted from 0; without `amount`, all of it."""

    model_config = ConfigDict(extra="forbid")

    line: Annotated[int, Field(strict=True, ge=0, le=10_000)]
    amount: Annotated[Amount, Field(gt=0)] | None = None


class CreditNoteCreate(BaseModel):
    """What to give back, including tax: an amount, some lines, or else all that is left."""

    model_config = ConfigDict(extra="forbid")

    amount: Annotated[Amount, Field(gt=0)] | None = None
    lines: (
        Annotated[
            list[Annotated[int, Field(strict=True, ge=0, le=10_000)] | LineCreate],
            Field(min_length=1, max_length=10_000),
        ]
        | None
    ) = None
    reason: Reason

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.amount is not None and self.lines is not None:
            raise ValueError("give an amount or lines, not both")
        return self

    def wanted_lines(self) -> list[LineCreate]:
        """Return the lines to give back."""
        return [
            LineCreate(line=each) if isinstance(each, int) else each for each in self.lines or ()
        ]


class CreditNoteRead(BaseModel):
    id: str
    number: str
    invoice: str = Field(description="The id of the invoice.")
    amount: str
    currency: str
    lines: list[CreditedLine]
    reason: str


class CreditNoteList(BaseModel):
    credit_notes: list[CreditNoteRead]


class CreditTooLarge(ServiceError):
    """The amount exceeds what is left on the invoice."""

    status = 409
    code = "credit_too_large"
    detail = "The amount exceeds what is left on the invoice."


async def create(
    session: AsyncSession,
    *,
    invoice_id: str,
    note: CreditNoteCreate,
    by: str,
    books: Books,
    now: datetime,
) -> CreditNoteRead:
    """Issue a credit note.

    Raises:
        InvoiceNotFound: there is no such invoice.
        BodyInvalid: a line does not exist, or an amount is not in whole minor units.
        CreditTooLarge: the invoice, or a line, has less left.
    """
    invoice = await get_invoice(session, account=None, invoice_id=invoice_id)
    await lock_money(session, accounts=[invoice.account], journals=())
    series = books.series("credit_note")
    sequence = await next_number(session, series=series)
    left = await find_left(session, invoice)
    lines = _lines(note.wanted_lines(), left=left)
    amount = sum(lines.values()) if lines else (note.amount or left.total)
    if amount % left.unit:
        raise BodyInvalid(
            [{"loc": ["body", "amount"], "msg": "Must be in whole minor units of the currency."}]
        )
    if amount > left.total or amount <= 0:
        raise CreditTooLarge(
            f"The invoice has {format_amount(left.total)} {invoice.currency} left to give back."
        )
    return await issue(
        session,
        invoice,
        left=left,
        amount=amount,
        lines=lines,
        is_of_events=False,
        reason=note.reason,
        series=series,
        sequence=sequence,
        by=by,
        now=now,
    )


async def find_left(session: AsyncSession, invoice: InvoiceRead) -> InvoiceLeft:
    """Return what is left of an invoice; its account is locked."""
    account = invoice.account
    taken = await find_reversed(session, accounts=[account], period=invoice.period)
    return what_is_left(
        invoice,
        notes=await repository.list_notes(session, invoice_id=invoice.id),
        taken=taken.get(account, {}),
        credited=await find_credited(session, invoice),
        prepaid=await repository.find_prepaid(
            session, price_ids={line.price_id for line in invoice.lines}
        ),
    )


def _lines(wanted: Sequence[LineCreate], *, left: InvoiceLeft) -> dict[int, int]:
    """Return what to give back of each line, including tax.

    All that is left of a line is never more than what is left of the invoice.
    """
    found: dict[int, int] = {}
    available = left.total
    for each in wanted:
        if each.line >= len(left.lines) or each.line in found:
            raise BodyInvalid(
                [{"loc": ["body", "lines"], "msg": "Must name lines of the invoice, each once."}]
            )
        of_line = left.lines[each.line].left
        amount = min(of_line, available) if each.amount is None else each.amount
        if amount > of_line or of_line <= 0:
            raise CreditTooLarge(
                f"Line {each.line} has {format_amount(of_line)} left to give back."
            )
        found[each.line] = amount
        available -= amount
    return {line: amount for line, amount in found.items() if amount}


async def issue(
    session: AsyncSession,
    invoice: InvoiceRead,
    *,
    left: InvoiceLeft,
    amount: int,
    lines: Mapping[int, int],
    is_of_events: bool,
    reason: str,
    series: str,
    sequence: int,
    by: str,
    now: datetime,
) -> CreditNoteRead:
    """Store a credit note under its number, and post it.

    What the account owes is reduced first; what was paid from its balance returns there. The
    account is locked.

    Args:
        left: what was left before.
        amount: including tax, at most what is left.
        is_of_events: whether it gives back events that are taken back.
    """
    owed, to_balance = left.divide(amount)
    tax = left.tax_in(amount)
    note_id = str(uuid4())
    entry = make_entry(
        "credit_note",
        currency=invoice.currency,
        reference=note_id,
        postings=[
            Posting("adjustments", amount - tax, account=invoice.account),
            Posting("tax", tax),
            Posting("receivable", -owed, account=invoice.account),
            Posting("prepaid", -to_balance, account=invoice.account),
            # The balance paid exact amounts, where the invoice shows rounded ones.
            Posting("rounding", -(amount - owed - to_balance)),
        ],
        now=now,
    )
    if to_balance:
        changes = {invoice.account: to_balance}
        await store_money(session, reservations=(), changes=changes, now=now)
    row: dict[str, Any] = {
        "id": note_id,
        "series": series,
        "sequence": sequence,
        "number": f"CN-{sequence:06d}",
        "invoice_id": invoice.id,
        "account": invoice.account,
        "currency": invoice.currency,
        **amounts.columns("amount", amount),
        **amounts.columns("to_balance", to_balance),
        "lines": [
            {"line": line, "amount": format_amount(each)}
            | ({"events": True} if is_of_events else {})
            for line, each in sorted(lines.items())
        ],
        "reason": reason,
        "by": by,
        "issued_at": now,
        "entry_id": await post(session, entry),
    }
    row["digest"] = row_digest(row)
    await repository.add_note(session, row=row)
    return CreditNoteRead(
        id=note_id,
        number=row["number"],
        invoice=invoice.id,
        amount=format_amount(amount),
        currency=invoice.currency,
        lines=[CreditedLine.model_validate(each) for each in row["lines"]],
        reason=reason,
    )


async def list_notes(session: AsyncSession, *, invoice_id: str) -> CreditNoteList:
    """Return the credit notes of an invoice, oldest first."""
    notes = await repository.list_notes(session, invoice_id=invoice_id)
    return CreditNoteList(
        credit_notes=[
            CreditNoteRead(
                id=note.id,
                number=note.number,
                invoice=note.invoice_id,
                amount=format_amount(note.amount),
                currency=note.currency,
                lines=[CreditedLine.model_validate(each) for each in note.lines],
                reason=note.reason,
            )
            for note in notes
        ]
    )
