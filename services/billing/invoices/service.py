"""Reading invoices and previews, and billing profiles."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.cursors import from_cursor, to_cursor
from services.billing.invoices import billed, repository
from services.billing.invoices.issuing import Books, as_party, make_drafts
from services.billing.invoices.making import as_body, make_draft
from services.billing.invoices.models import Invoice
from services.billing.invoices.parties import Party, ProfileUpdate, find_tax
from services.billing.invoices.schemas import (
    InvoicePage,
    InvoicePreview,
    InvoiceRead,
    InvoiceSummary,
)
from services.billing.ledger.accounts import find_currencies
from services.billing.periods import next_period, period_of
from services.billing.plans.fees import find_fees
from services.billing.plans.service import find_currency
from services.common.contracts import format_amount
from services.common.errors import NotFound, ServiceError


class InvoiceNotFound(NotFound):
    """The account has no such invoice."""

    code = "invoice_not_found"
    detail = "Invoice not found."


class ProfileNotFound(NotFound):
    """The account has no billing profile."""

    code = "billing_profile_not_found"
    detail = "The account has no billing profile."


class MonthClosed(ServiceError):
    """The month is closed, so that nothing is left to preview."""

    status = 409
    code = "month_closed"
    detail = "The month is closed; see its invoice."


# -- invoices ------------------------------------------------------------------------------------


async def list_invoices(
    session: AsyncSession, *, account: str, cursor: str | None, limit: int
) -> InvoicePage:
    """Return a page of an account's invoices, newest first.

    Raises:
        BodyInvalid: the cursor is invalid.
    """
    found = await repository.list_invoices(
        session,
        account=account,
        before=_parse_cursor(cursor) if cursor else None,
        limit=limit + 1,
    )
    page = found[:limit]
    return InvoicePage(
        invoices=[_summary(invoice) for invoice in page],
        next_cursor=_cursor(page[-1]) if len(found) > limit else None,
    )


async def get_invoice(
    session: AsyncSession, *, account: str | None, invoice_id: str
) -> InvoiceRead:
    """Return an invoice of an account, or of any.

    Raises:
        InvoiceNotFound: no such invoice, or it is another account's.
    """
    found = None
    if invoice_id.isascii():  # MySQL cannot compare other text with an ASCII column
        found = await repository.find_invoice(session, invoice_id=invoice_id)
    if found is None or account not in (None, found.account):
        raise InvoiceNotFound()
    return InvoiceRead.model_validate(
        {
            **found.document,
            "id": found.id,
            "number": found.number,
            "issued_at": found.issued_at,
        }
    )


async def preview(
    session: AsyncSession,
    *,
    account: str,
    period: str | None,
    books: Books,
    default_plan: str | None,
    now: datetime,
) -> InvoicePreview:
    """Return the invoice of an open month as it would be now; fees count to the month's end.

    Args:
        period: by default, the month that is open now.

    Raises:
        MonthClosed: the month is closed.
        InvoiceNotFound: the account has neither usage nor a plan.
        UnknownCurrency: the account's currency cannot be rounded to.
    """
    wanted = period or await _open_period(session, now=now)
    month = await repository.find_period(session, period=wanted)
    if month is not None and month.closed_at is not None:
        raise MonthClosed()
    usage = await billed.find_usage(session, account=account, period=wanted)
    fixed = await find_currencies(session, accounts=[account])
    if usage or await find_fees(session, accounts=[account], period=wanted, currencies=fixed):
        (draft,) = await make_drafts(session, {account: usage}, period=wanted, books=books)
        return _preview(as_body(draft))
    currency = await find_currency(session, account=account, default_plan=default_plan, now=now)
    if currency is None:
        raise InvoiceNotFound("The account has neither usage nor a plan.")
    buyer = await _buyer(session, account=account)
    empty = make_draft(
        (),
        account=account,
        period=wanted,
        currency=currency,
        prices={},
        seller=books.seller,
        buyer=buyer,
        rate=find_tax(books.tax_rules, seller=books.seller, buyer=buyer),
    )
    return _preview(as_body(empty))


async def _open_period(session: AsyncSession, *, now: datetime) -> str:
    period = period_of(now)
    while (month := await repository.find_period(session, period=period)) and month.closed_at:
        period = next_period(period)
    return period


async def _buyer(session: AsyncSession, *, account: str) -> Party:
    profiles = await repository.find_profiles(session, accounts=[account])
    return as_party(account, profiles.get(account))


def _preview(body: object) -> InvoicePreview:
    return InvoicePreview.model_validate(body, from_attributes=True)


def _summary(invoice: Invoice) -> InvoiceSummary:
    return InvoiceSummary(
        id=invoice.id,
        number=invoice.number,
        account=invoice.account,
        period=invoice.period,
        currency=invoice.currency,
        total=format_amount(invoice.total),
        issued_at=invoice.issued_at,
    )


def _cursor(invoice: Invoice) -> str:
    return to_cursor(invoice.period, invoice.id)


def _parse_cursor(cursor: str) -> tuple[str, str]:
    period, invoice_id = from_cursor(cursor, parts=2)
    return period, invoice_id


# -- billing profiles ----------------------------------------------------------------------------


async def get_profile(session: AsyncSession, *, account: str) -> ProfileUpdate:
    """Return an account's billing profile.

    Raises:
        ProfileNotFound: it has none.
    """
    profiles = await repository.find_profiles(session, accounts=[account])
    if account not in profiles:
        raise ProfileNotFound()
    found = profiles[account]
    return ProfileUpdate.model_construct(
        name=found.name,
        address=found.address,
        country=found.country,
        vat_id=found.vat_id,
        email=found.email,
    )


async def put_profile(
    session: AsyncSession, *, account: str, profile: ProfileUpdate, now: datetime
) -> ProfileUpdate:
    """Store an account's billing profile; it counts for invoices issued from now on."""
    values = {"account": account, **profile.model_dump(), "updated_at": now}
    await repository.put_profile(session, values=values)
    return profile
