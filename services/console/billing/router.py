"""The plan, the balance, the open month, invoices, and who they are addressed to."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request, Response

from services.common.http.routing import new_router
from services.console.apis import billing as billing_api
from services.console.apis.billing import Document
from services.console.apis.calls import Api, ApiProblem, ApiUnavailable, load
from services.console.design.form_errors import explain
from services.console.design.pages import see_other, show
from services.console.sessions.flashes import Flash, write_flash
from services.console.sessions.guards import RequireSession, SentForm
from services.console.sessions.visitors import Session
from services.console.state import AppApis
from services.console.usage.figures import forecast, month_of

router = new_router(tag="billing")

_PROFILE = ("name", "address", "country", "vat_id", "email")
_FILES = {"pdf": "application/pdf", "csv": "text/csv"}
_VAT_ID = re.compile(r".*\bvat_id (.*)", re.DOTALL)

_MAX_OFFERED = 20

Wrong = tuple[int, dict[str, str], list[Flash]]
"""The page's status, the errors by field, and what is about no field."""
Reader = Annotated[Session, Depends(RequireSession("usage:read"))]
BillingManager = Annotated[Session, Depends(RequireSession("billing:manage"))]


@router.get("/billing")
async def billing_page(request: Request, session: Reader, apis: AppApis) -> Response:
    """Show the plan, the balance, the open month and the billing profile."""
    return await _show(request, session, apis.billing)


@router.post("/billing")
async def store_profile(
    request: Request, session: BillingManager, form: SentForm, apis: AppApis
) -> Response:
    """Store who invoices are addressed to."""
    profile = {name: form[name].strip() for name in _PROFILE if form.get(name, "").strip()}
    if "country" in profile:
        profile["country"] = profile["country"].upper()
    if "address" in profile:
        profile["address"] = profile["address"].replace("\r\n", "\n")
    try:
        await billing_api.store_profile(apis.billing, token=session.token, profile=profile)
    except (ApiProblem, ApiUnavailable) as error:
        wrong = _what_is_wrong(error)
        return await _show(request, session, apis.billing, form=form, wrong=wrong)
    return write_flash(request, see_other("/billing"), Flash("success", "The profile is saved."))


@router.post("/billing/plan")
async def change_plan(
    request: Request, session: BillingManager, form: SentForm, apis: AppApis
) -> Response:
    """Put the account on another plan; the same form again changes nothing."""
    try:
        subscription = await billing_api.subscribe(
            apis.billing, token=session.token, plan=form.get("plan", "")
        )
    except (ApiProblem, ApiUnavailable) as error:
        unavailable = "Billing is unavailable; the plan was not changed."
        wrong = explain(error, fields=(), unavailable=unavailable)
        return await _show(request, session, apis.billing, wrong=wrong)
    flash = Flash("success", f"You are now on the plan “{subscription['name']}”.")
    return write_flash(request, see_other("/billing"), flash)


@router.get("/invoices")
async def invoices_page(
    request: Request, session: Reader, apis: AppApis, cursor: str = ""
) -> Response:
    """List the account's invoices, newest first."""
    page = await load(
        billing_api.list_invoices(apis.billing, token=session.token, cursor=cursor or None)
    )
    return show(request, "billing/invoices.html.j2", page=page)


@router.get("/invoices/{id}")
async def invoice_page(id: str, request: Request, session: Reader, apis: AppApis) -> Response:
    """Show an invoice; `<id>.pdf` and `<id>.csv` are its files."""
    stem, _, ending = id.rpartition(".")
    if stem and ending in _FILES:
        return await _file(apis.billing, session, stem, media_type=_FILES[ending])
    invoice = await billing_api.read_invoice(apis.billing, token=session.token, invoice=id)
    return show(request, "billing/invoice.html.j2", invoice=invoice)


async def _file(billing: Api, session: Session, invoice: str, *, media_type: str) -> Response:
    found = await billing_api.download_invoice(
        billing, token=session.token, invoice=invoice, media_type=media_type
    )
    if not found.headers.get("content-type", "").startswith(media_type):
        raise HTTPException(502)
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": found.headers.get("content-disposition", "inline"),
    }
    return Response(found.content, media_type=media_type, headers=headers)


async def _find_profile(billing: Api, session: Session) -> Document:
    """Return the account's profile; an empty one if it has none."""
    try:
        return await billing_api.find_profile(billing, token=session.token)
    except ApiProblem as problem:
        if problem.status == 404:
            return {}
        raise


async def _find_preview(billing: Api, session: Session) -> Document | None:
    """Return the open month as an invoice would be now; None without a plan and usage."""
    try:
        return await billing_api.preview_invoice(billing, token=session.token)
    except ApiProblem as problem:
        if problem.status in (404, 409):
            return None
        raise


async def _find_plans(billing: Api, session: Session) -> tuple[Document | None, list[Document]]:
    """Return the account's subscription, and the other plans that it may choose."""
    subscription, plans = await asyncio.gather(
        billing_api.find_subscription(billing, token=session.token),
        billing_api.list_plans(billing, token=session.token),
    )
    offered = [plan for plan in plans if plan["public"]]
    if subscription is not None:
        mine = (subscription["currency"], subscription["plan"])
        offered = [
            each for each in offered if each["currency"] == mine[0] and each["id"] != mine[1]
        ]
    return subscription, offered[:_MAX_OFFERED]


async def _show(
    request: Request,
    session: Session,
    billing: Api,
    *,
    form: Mapping[str, str] | None = None,
    wrong: Wrong = (200, {}, []),
) -> Response:
    status, errors, notices = wrong
    manages = session.may("billing:manage")
    plans, balance, preview, profile = await asyncio.gather(
        load(_find_plans(billing, session)) if manages else _nothing(),
        load(billing_api.read_balance(billing, token=session.token)),
        load(_find_preview(billing, session)) if manages else _nothing(),
        load(_find_profile(billing, session)) if manages else _nothing(),
    )
    now = datetime.now(UTC)
    expected = None
    if preview is not None and preview.value is not None:
        amount = sum((Decimal(line["amount"]) for line in preview.value["lines"]), Decimal(0))
        month = month_of(now.date())
        is_now = preview.value["period"] == month.id
        expected = forecast(amount, month=month, now=now) if is_now else None
    return show(
        request,
        "billing/billing.html.j2",
        status=status,
        notices=notices,
        plans=plans,
        balance=balance,
        preview=preview,
        forecast=expected,
        profile=profile,
        form=form,
        errors=errors,
    )


async def _nothing() -> Any:
    return None


def _what_is_wrong(error: ApiProblem | ApiUnavailable) -> Wrong:
    """Return what is wrong with a profile."""
    if isinstance(error, ApiUnavailable):
        return 503, {}, [Flash("danger", "Billing is unavailable; nothing was saved.")]
    errors, others = {}, []
    for location, text in error.errors.items():
        field = location.partition(".")[0]
        about_vat_id = _VAT_ID.fullmatch(text)
        if field in _PROFILE:
            errors[field] = text
        elif about_vat_id:
            errors["vat_id"] = f"This {about_vat_id[1]}."
        else:
            others.append(Flash("danger", text))
    if not errors and not others:
        others = [Flash("danger", error.detail)]
    return error.status, errors, others
