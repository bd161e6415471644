"""Accounts: find one, see all that the APIs know about it, and change its plan and its money."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from urllib.parse import urlencode

from babel import Locale
from fastapi import HTTPException, Request, Response

from services.common.http.routing import new_router
from services.console.admin.forms import Sent, incomplete, is_account, refused
from services.console.apis import admin_auth, admin_billing
from services.console.apis import billing as billing_api
from services.console.apis.billing import Document
from services.console.apis.calls import ApiProblem, ApiUnavailable, load
from services.console.design.locales import show_integer, show_money, show_short_day
from services.console.design.pages import locale_of, see_other, show
from services.console.sessions.flashes import Flash, write_flash
from services.console.sessions.guards import Administrator, SentForm
from services.console.sessions.visitors import Session
from services.console.state import Apis, AppApis
from services.console.usage.figures import daily, month_of

router = new_router(prefix="/admin/accounts", tag="administration")

_PAGE = 20
_EVENTS = 8
_PLAN = ("plan", "effective_from")
_CREDIT = ("amount", "currency", "reason")
_MAX_REASON = 255


@router.get("")
async def accounts_page(
    request: Request, session: Administrator, apis: AppApis, q: str = "", cursor: str = ""
) -> Response:
    """List the users, each of whom has an account; search by e-mail address, name or account id."""
    text = q.strip()
    if is_account(text.lower()):
        return see_other(f"/admin/accounts/{text.lower()}")
    auth, token = apis.auth, session.token
    found = await load(
        admin_auth.search_users(auth, token=token, text=text, cursor=cursor, limit=_PAGE)
        if text
        else admin_auth.list_users(auth, token=token, cursor=cursor, limit=_PAGE)
    )
    users = found.value.users if found.value else []
    following = found.value.next_cursor if found.value else None
    today = datetime.now(UTC).date()
    usages = await load(
        admin_billing.read_usages(
            apis.billing, token=token, accounts=[each["id"] for each in users]
        )
    )
    query = {"cursor": following or ""} | ({"q": text} if text else {})
    return show(
        request,
        "admin/accounts.html.j2",
        found=found,
        usages=usages,
        totals={each["account"]: each["total"] for each in usages.value or ()},
        drawn={
            each["account"]: [amount for _, _, amount in _days(each, today)]
            for each in usages.value or ()
        },
        text=text,
        is_first=not cursor,
        older=f"/admin/accounts?{urlencode(query)}" if following else None,
    )


@router.get("/{id}")
async def account_page(
    id: str, request: Request, session: Administrator, apis: AppApis
) -> Response:
    """Show what the APIs know about an account."""
    return await show_account(request, session, apis, account_of(id), Sent())


@router.post("/{id}/plan")
async def assign_plan(
    id: str, request: Request, session: Administrator, form: SentForm, apis: AppApis
) -> Response:
    """Put the account on a plan."""
    account, begins = account_of(id), form.get("effective_from", "")
    if not form.get("plan"):
        sent = incomplete("plan", form, {"plan": "Choose a plan."})
        return await show_account(request, session, apis, account, sent)
    try:
        await admin_billing.assign_plan(
            apis.billing,
            token=session.token,
            account=account,
            plan=form["plan"],
            effective_from=f"{begins}T00:00:00Z" if begins else None,
        )
    except (ApiProblem, ApiUnavailable) as error:
        sent = refused("plan", form, error, shown=_PLAN)
        return await show_account(request, session, apis, account, sent)
    flash = Flash("success", "The plan is set. Processes apply it within 30 seconds.")
    return write_flash(request, see_other(f"/admin/accounts/{account}"), flash)


@router.post("/{id}/credit")
async def add_credit(
    id: str, request: Request, session: Administrator, form: SentForm, apis: AppApis
) -> Response:
    """Add prepaid money to the account, once however often the form is sent."""
    account = account_of(id)
    credit = {name: form.get(name, "").strip() for name in _CREDIT}
    errors = _errors_of_credit(credit)
    if errors:
        sent = incomplete("credit", form, errors)
        return await show_account(request, session, apis, account, sent)
    try:
        added = await admin_billing.add_credit(
            apis.billing,
            token=session.token,
            account=account,
            credit=credit,
            key=form.get("once", ""),
        )
    except (ApiProblem, ApiUnavailable) as error:
        sent = refused("credit", form, error, shown=_CREDIT)
        return await show_account(request, session, apis, account, sent)
    locale = locale_of(request)
    amount, balance = (
        show_money(added[name], credit["currency"], locale) for name in ("amount", "balance")
    )
    flash = Flash("success", f"{amount} added. The balance is now {balance}.")
    return write_flash(request, see_other(f"/admin/accounts/{account}"), flash)


@router.post("/{id}/access")
async def set_access(
    id: str, request: Request, session: Administrator, form: SentForm, apis: AppApis
) -> Response:
    """Disable or enable the user."""
    account, disabled = account_of(id), form.get("disabled") == "yes"
    try:
        await admin_auth.set_disabled(
            apis.auth, token=session.token, user_id=account, disabled=disabled
        )
    except (ApiProblem, ApiUnavailable) as error:
        sent = refused("access", form, error, shown=())
        return await show_account(request, session, apis, account, sent)
    text = (
        "The user is disabled, and signed out within seconds."
        if disabled
        else "The user is enabled."
    )
    return write_flash(request, see_other(f"/admin/accounts/{account}"), Flash("success", text))


def _days(usage: Document, today: date) -> list[tuple[date, int, Decimal]]:
    """Return the requests and the revenue of each day of this month."""
    return daily(usage["buckets"], first=month_of(today).first, last=today)


def _draw(usage: Document, today: date, locale: Locale) -> list[tuple[str, Decimal, str]]:
    """Return the revenue of each day of this month as points of a chart."""
    days = _days(usage, today)
    currency = usage["total"]["currency"]
    return [
        (show_short_day(day, locale), amount, show_money(amount, currency, locale))
        for day, _, amount in days
    ]


def account_of(text: str) -> str:
    """Return the id of an account in a path.

    Raises:
        HTTPException: it is no such id.
    """
    if not is_account(text):
        raise HTTPException(404)
    return text


def _errors_of_credit(credit: Mapping[str, str]) -> dict[str, str]:
    errors = {}
    try:
        if not Decimal(credit["amount"]) > 0:
            errors["amount"] = "Enter an amount above 0."
    except InvalidOperation:
        errors["amount"] = "Enter an amount, such as 25 or 12.50."
    if not credit["currency"]:
        errors["currency"] = "Choose a currency."
    if not credit["reason"]:
        errors["reason"] = "Say why, for the record."
    elif len(credit["reason"]) > _MAX_REASON:
        errors["reason"] = f"Use at most {_MAX_REASON} characters."
    return errors


async def show_account(
    request: Request, session: Session, apis: Apis, account: str, sent: Sent
) -> Response:
    """Return the page of an account, with what is wrong with a form that was sent."""
    billing, about = apis.billing, {"token": session.token, "account": account}
    today = datetime.now(UTC).date()
    (
        (user, notes, plans, subscription, balance, events),
        (days, by_model, by_key, invoices, preview),
    ) = await asyncio.gather(
        asyncio.gather(
            load(admin_auth.find_user(apis.auth, token=session.token, user_id=account)),
            load(admin_auth.list_notes(apis.auth, **about)),
            load(billing_api.list_plans(billing, token=session.token)),
            load(billing_api.find_subscription(billing, **about)),
            load(admin_billing.read_balance(billing, **about)),
            load(admin_billing.list_events(billing, **about, limit=_EVENTS)),
        ),
        asyncio.gather(
            load(admin_billing.read_usage(billing, **about, group_by="day")),
            load(admin_billing.read_usage(billing, **about, group_by="model")),
            load(admin_billing.read_usage(billing, **about, group_by="api_key")),
            load(admin_billing.list_invoices(billing, **about, limit=6)),
            load(admin_billing.find_preview(billing, **about)),
        ),
    )
    locale, usage = locale_of(request), days.value
    found = _days(usage, today) if usage else []
    return show(
        request,
        "admin/account.html.j2",
        status=sent.status,
        notices=sent.notices,
        account=account,
        sent=sent,
        user=user,
        notes=notes,
        plans=plans,
        subscription=subscription.value,
        used_plans=_plans_in_use(plans.value or [], preview.value),
        balance=balance,
        usage=days,
        by_model=by_model,
        by_key=by_key,
        events=events,
        invoices=invoices,
        currencies=_currencies(plans.value or [], balance.value),
        amounts=_draw(usage, today, locale) if usage else [],
        requests=[
            (show_short_day(day, locale), Decimal(count), show_integer(count, locale))
            for day, count, _ in found
        ],
    )


def _plans_in_use(plans: list[Document], preview: Document | None) -> list[str]:
    """Return the names of the plans whose prices this month's usage has."""
    used = {line["price_id"] for line in preview["lines"]} if preview else set()
    return [plan["name"] for plan in plans if used & {price["id"] for price in plan["prices"]}]


def _currencies(plans: list[Document], balance: Document | None) -> list[str]:
    """Return the currencies to choose from; the account's own, if it has one."""
    if balance and balance["currency"] and Decimal(balance["balance"]):
        return [balance["currency"]]
    own = [balance["currency"]] if balance and balance["currency"] else []
    others = sorted({plan["currency"] for plan in plans} - set(own))
    return [*own, *others] or ["USD"]
