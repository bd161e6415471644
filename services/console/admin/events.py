"""The event debugger: from the id of a prediction to the line of its invoice."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from urllib.parse import quote, urlencode
from uuid import UUID

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.forms import is_account
from services.console.admin.revenue import MAX_ACCOUNTS_LOOKED_AT, list_active
from services.console.apis import admin_auth, admin_billing
from services.console.apis import billing as billing_api
from services.console.apis.billing import Document
from services.console.apis.calls import Api, load
from services.console.design.pages import see_other, show
from services.console.sessions.guards import Administrator
from services.console.sessions.visitors import Session
from services.console.state import AppApis
from services.console.usage.figures import Month, month_of, offered_months

router = new_router(prefix="/admin/events", tag="administration")

_INVOICES = 100
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Priced:
    """The price of an event, and the plan that it is part of."""

    plan: Document
    price: Document


@dataclass(frozen=True, slots=True)
class Billed:
    """The invoice of an event, or the open month as it would be now, and the event's line."""

    invoice: Document
    line: Document | None


@router.get("")
async def events_page(
    request: Request, session: Administrator, id: str = "", account: str = ""
) -> Response:
    """Ask for the event."""
    event, account = id.strip(), account.strip().lower()
    errors = {"account": "Enter a whole account id."} if account and not is_account(account) else {}
    if event and not errors:
        query = f"?{urlencode({'account': account})}" if account else ""
        return see_other(f"/admin/events/{quote(event, safe='')}{query}")
    return show(
        request,
        "admin/events.html.j2",
        status=422 if errors else 200,
        event=event,
        account=account,
        errors=errors,
    )


@router.get("/{id}")
async def event_page(
    id: str, request: Request, session: Administrator, apis: AppApis, account: str = ""
) -> Response:
    """Follow one event from the prediction to its invoice."""
    account = account.strip().lower()
    owner = account if is_account(account) else await find_owner(apis.billing, session, id)
    event = (
        await admin_billing.find_event(apis.billing, token=session.token, account=owner, event=id)
        if owner
        else None
    )
    if owner is None or event is None:
        return show(
            request,
            "admin/events.html.j2",
            status=404,
            event=id,
            account=account,
            errors={"id": "There is no such event, or its account must be named."},
        )
    about = {"token": session.token, "account": owner}
    user, claims, priced, billed = await asyncio.gather(
        load(admin_auth.find_user(apis.auth, token=session.token, user_id=owner)),
        load(admin_billing.read_signed_event(apis.billing, **about, event=id)),
        load(_find_price(apis.billing, session, event)),
        load(_find_invoice(apis.billing, session, owner, event)),
    )
    return show(
        request,
        "admin/event.html.j2",
        account=owner,
        user=user.value,
        event=event,
        claims=claims,
        priced=priced,
        billed=billed,
    )


async def find_owner(billing: Api, session: Session, event: str) -> str | None:
    """Return the account of an event, if it is one of those active in the event's month.

    Billing finds an event only within an account; ids of version 7 contain their time.
    """
    today = datetime.now(UTC).date()
    active = await asyncio.gather(
        *(
            list_active(billing, token=session.token, period=month.id)
            for month in _months_of(event) or offered_months(today=today)[:2]
        )
    )
    candidates = list(dict.fromkeys(chain([session.account], *active)))[:MAX_ACCOUNTS_LOOKED_AT]
    places = asyncio.Semaphore(_AT_ONCE)

    async def is_owner(account: str) -> bool:
        async with places:
            found = await admin_billing.find_event(
                billing, token=session.token, account=account, event=event
            )
        return found is not None

    owners = await asyncio.gather(*(is_owner(account) for account in candidates))
    return next((each for each, owns in zip(candidates, owners, strict=True) if owns), None)


def _months_of(event: str) -> list[Month]:
    """Return the month in which an id of version 7 was made; none for another id."""
    try:
        number = UUID(event)
        made = datetime.fromtimestamp((number.int >> 80) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return []
    return [month_of(made.date())] if number.version == 7 else []


async def _find_price(billing: Api, session: Session, event: Document) -> Priced | None:
    plans = await billing_api.list_plans(billing, token=session.token)
    return next(
        (
            Priced(plan, price)
            for plan in plans
            for price in plan["prices"]
            if price["id"] == event["price_id"]
        ),
        None,
    )


async def _find_invoice(
    billing: Api, session: Session, account: str, event: Document
) -> Billed | None:
    """Return the invoice with the event, or the month that will have it."""
    about = {"token": session.token, "account": account}
    document: Document | None
    if event["invoice"] is None:
        document = await admin_billing.find_preview(billing, **about, period=event["time"][:7])
        document = document or await admin_billing.find_preview(billing, **about)
    else:
        page = await admin_billing.list_invoices(billing, **about, limit=_INVOICES)
        found = (each for each in page["invoices"] if each["number"] == event["invoice"])
        summary = next(found, None)
        document = (
            await billing_api.read_invoice(billing, token=session.token, invoice=summary["id"])
            if summary
            else None
        )
    if document is None:
        return None
    lines = [
        line
        for line in document["lines"]
        if line["price_id"] == event["price_id"] and line["model"] in (event["model"], None)
    ]
    return Billed(document, lines[0] if lines else None)
