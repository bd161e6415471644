"""Recalls: credit every request that a version of a model answered."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.forms import Sent, incomplete, refused
from services.console.admin.revenue import MAX_ACCOUNTS_LOOKED_AT, list_active, read_usages
from services.console.apis import admin_auth, admin_billing
from services.console.apis.calls import Api, ApiProblem, ApiUnavailable, Part, load
from services.console.design.pages import see_other, show
from services.console.sessions.flashes import Flash, write_flash
from services.console.sessions.guards import Administrator, SentForm
from services.console.sessions.visitors import Session
from services.console.state import Apis, AppApis
from services.console.usage.figures import month_of

router = new_router(prefix="/admin/recalls", tag="administration")

_FIELDS = ("model", "version", "reason")
_ALL_TIME = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Credited:
    """What an account gets back."""

    account: str
    currency: str
    requests: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Effect:
    """What a recall credits, as far as it can be seen before."""

    accounts: list[Credited]
    complete: bool
    """Whether the accounts that were active recently are few enough to look at all of them."""


@router.get("")
async def recalls_page(
    request: Request, session: Administrator, apis: AppApis, model: str = "", version: str = ""
) -> Response:
    """Show the recalls and, for a version, what recalling it would credit."""
    fields = {"model": model.strip(), "version": version.strip()}
    return await _show(request, session, apis, Sent("recall", fields))


@router.post("/new")
async def create_recall(
    request: Request, session: Administrator, form: SentForm, apis: AppApis
) -> Response:
    """Recall a version, once however often the form is sent."""
    recall = {name: form.get(name, "").strip() for name in _FIELDS}
    missing = {
        "model": "Name the model.",
        "version": "Name the version.",
        "reason": "Say why; the customers read it.",
    }
    errors = {name: text for name, text in missing.items() if not recall[name]}
    if errors:
        return await _show(request, session, apis, incomplete("recall", form, errors))
    try:
        await admin_billing.create_recall(
            apis.billing, token=session.token, recall=recall, key=form.get("once", "")
        )
    except (ApiProblem, ApiUnavailable) as error:
        return await _show(request, session, apis, refused("recall", form, error, shown=_FIELDS))
    text = f"{recall['model']} {recall['version']} is recalled; its requests are being credited."
    return write_flash(request, see_other("/admin/recalls"), Flash("success", text))


async def _show(request: Request, session: Session, apis: Apis, sent: Sent) -> Response:
    version = sent.fields.get("version", "").strip()
    recalls, effect = await asyncio.gather(
        load(admin_billing.list_recalls(apis.billing, token=session.token)),
        load(_find_effect(apis.billing, token=session.token, version=version)),
    )
    credited = [each.account for each in effect.value.accounts] if effect.value else []
    emails = await load(admin_auth.find_emails(apis.auth, token=session.token, ids=credited))
    return show(
        request,
        "admin/recalls.html.j2",
        status=sent.status,
        notices=sent.notices,
        sent=sent,
        recalls=recalls,
        effect=effect if version else Part[Effect](),
        emails=emails.value or {},
        version=version,
    )


async def _find_effect(billing: Api, *, token: str, version: str) -> Effect | None:
    """Return what accounts with calls in this month or the last were charged for a version."""
    if not version:
        return None
    month = month_of(datetime.now(UTC).date())
    both = await asyncio.gather(
        *(list_active(billing, token=token, period=each.id) for each in (month, month.before()))
    )
    accounts = sorted({account for active in both for account in active})
    looked_at = accounts[:MAX_ACCOUNTS_LOOKED_AT]
    usages = await read_usages(
        billing, token=token, accounts=looked_at, group_by="version", since=_ALL_TIME
    )
    found = [
        Credited(
            usage["account"],
            usage["total"]["currency"],
            bucket["requests"],
            Decimal(bucket["amount"]),
        )
        for usage in usages
        for bucket in usage["buckets"]
        if bucket["key"] == version
    ]
    found.sort(key=lambda each: (-each.amount, each.account))
    return Effect(found, complete=len(looked_at) == len(accounts))
