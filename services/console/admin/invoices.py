"""Invoices and billing runs: close a month, read any invoice, and give back what is left of it."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from urllib.parse import urlencode

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.forms import Sent, incomplete, is_account, refused
from services.console.admin.health import order_journals
from services.console.apis import admin_auth, admin_billing
from services.console.apis import billing as billing_api
from services.console.apis.billing import Document
from services.console.apis.calls import Api, ApiProblem, ApiUnavailable, load
from services.console.design.locales import show_counted, show_money
from services.console.design.pages import locale_of, see_other, show
from services.console.sessions.flashes import Flash, write_flash
from services.console.sessions.guards import Administrator, SentForm
from services.console.sessions.visitors import Session
from services.console.state import Apis, AppApis
from services.console.usage.figures import Month, month_of, offered_months

router = new_router(prefix="/admin/invoices", tag="administration")

_CLOSING = ("period", "force", "reason")
_NOTE = ("amount", "reason")
_MAX_LISTED = 100


@router.get("")
async def invoices_page(
    request: Request,
    session: Administrator,
    apis: AppApis,
    period: str = "",
    account: str = "",
    cursor: str = "",
) -> Response:
    """Show a month's invoices, or those of one account."""
    account = account.strip().lower()
    if account:
        return await _show_account(request, session, apis.billing, account, cursor)
    return await _show_month(request, session, apis, _past_month(period), Sent())


@router.post("/close")
async def close_month(
    request: Request, session: Administrator, form: SentForm, apis: AppApis
) -> Response:
    """Close a month and issue its invoices; a repeat changes nothing."""
    month, force = _past_month(form.get("period", "")), form.get("force") == "yes"
    reason = form.get("reason", "").strip()
    if force and not reason:
        errors = {"reason": "Say why the month is closed although usage is missing."}
        return await _show_month(request, session, apis, month, incomplete("close", form, errors))
    try:
        run = await admin_billing.run_billing(
            apis.billing,
            token=session.token,
            period=month.id,
            force=force,
            reason=reason or None,
        )
    except (ApiProblem, ApiUnavailable) as error:
        sent = refused("close", form, error, shown=_CLOSING)
        return await _show_month(request, session, apis, month, sent)
    count = show_counted(len(run["invoices"]), "invoice", locale_of(request))
    text = f"{month.id} is closed with {count}."
    to = f"/admin/invoices?{urlencode({'period': month.id})}"
    return write_flash(request, see_other(to), Flash("success", text))


@router.get("/{id}")
async def invoice_page(
    id: str, request: Request, session: Administrator, apis: AppApis
) -> Response:
    """Show an invoice, its credit notes, and the form of another one."""
    return await _show_invoice(request, session, apis, id, Sent())


@router.post("/{id}/credit-notes")
async def create_credit_note(
    id: str, request: Request, session: Administrator, form: SentForm, apis: AppApis
) -> Response:
    """Give some or all of an invoice back, once however often the form is sent."""
    amount, reason = form.get("amount", "").strip(), form.get("reason", "").strip()
    errors = {} if reason else {"reason": "Say why; the customer reads it."}
    if amount and not _is_positive(amount):
        errors["amount"] = "Enter an amount above 0, or leave it empty for all that is left."
    if errors:
        return await _show_invoice(request, session, apis, id, incomplete("note", form, errors))
    try:
        note = await admin_billing.create_credit_note(
            apis.billing,
            token=session.token,
            invoice=id,
            amount=amount or None,
            reason=reason,
            key=form.get("once", ""),
        )
    except (ApiProblem, ApiUnavailable) as error:
        if isinstance(error, ApiProblem) and error.status == 404:
            raise
        sent = refused("note", form, error, shown=_NOTE)
        return await _show_invoice(request, session, apis, id, sent)
    shown = show_money(note["amount"], note["currency"], locale_of(request))
    flash = Flash("success", f"Credit note {note['number']} of {shown} is issued.")
    return write_flash(request, see_other(f"/admin/invoices/{note['invoice']}"), flash)


def _past_months() -> list[Month]:
    """Return the months that can be closed, newest first."""
    return offered_months(today=datetime.now(UTC).date())[1:]


def _past_month(text: str) -> Month:
    """Return a month that is over; last month if a text names none that is offered."""
    last = month_of(datetime.now(UTC).date()).before()
    return next((each for each in _past_months() if each.id == text), last)


def _is_positive(text: str) -> bool:
    try:
        return Decimal(text) > 0
    except InvalidOperation:
        return False


async def find_run(billing: Api, session: Session, month: Month) -> Document | None:
    """Return a closed month's invoices; None if it is open.

    Repeating the run of a closed month returns its invoices and closes nothing.
    """
    closed = await admin_billing.is_closed(
        billing, token=session.token, account=session.account, period=month.id
    )
    if not closed:
        return None
    return await admin_billing.run_billing(billing, token=session.token, period=month.id)


async def _show_month(
    request: Request, session: Session, apis: Apis, month: Month, sent: Sent
) -> Response:
    run, journals = await asyncio.gather(
        load(find_run(apis.billing, session, month)),
        load(admin_billing.list_journals(apis.billing, token=session.token)),
    )
    issued = run.value["invoices"] if run.value else []
    listed = [invoice["account"] for invoice in issued[:_MAX_LISTED]]
    emails = await load(admin_auth.find_emails(apis.auth, token=session.token, ids=listed))
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for invoice in issued:
        totals[invoice["currency"]] += Decimal(invoice["total"])
    return show(
        request,
        "admin/invoices.html.j2",
        status=sent.status,
        notices=sent.notices,
        sent=sent,
        month=month,
        months=_past_months(),
        run=run,
        totals=totals,
        journals=order_journals(journals.value or []),
        emails=emails.value or {},
        max_listed=_MAX_LISTED,
    )


async def _show_account(
    request: Request, session: Session, billing: Api, account: str, cursor: str
) -> Response:
    known = is_account(account)
    page = (
        await load(
            admin_billing.list_invoices(
                billing, token=session.token, account=account, cursor=cursor or None
            )
        )
        if known
        else None
    )
    following = page.value["next_cursor"] if page and page.value else None
    query = urlencode({"account": account, "cursor": following or ""})
    return show(
        request,
        "admin/account_invoices.html.j2",
        status=200 if known else 422,
        account=account,
        page=page,
        older=f"/admin/invoices?{query}" if following else None,
        newer=f"/admin/invoices?{urlencode({'account': account})}" if cursor else None,
    )


async def _show_invoice(
    request: Request, session: Session, apis: Apis, invoice_id: str, sent: Sent
) -> Response:
    invoice = await billing_api.read_invoice(apis.billing, token=session.token, invoice=invoice_id)
    notes, user = await asyncio.gather(
        load(
            admin_billing.list_credit_notes(
                apis.billing, token=session.token, invoice=invoice["id"]
            )
        ),
        load(admin_auth.find_user(apis.auth, token=session.token, user_id=invoice["account"])),
    )
    return show(
        request,
        "admin/invoice.html.j2",
        status=sent.status,
        notices=sent.notices,
        sent=sent,
        invoice=invoice,
        notes=notes,
        credited=sum((Decimal(note["amount"]) for note in notes.value or ()), Decimal(0)),
        user=user.value,
    )
