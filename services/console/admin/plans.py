"""Plans: list them, publish one, and see who would pay more or less under it."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from babel import Locale
from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.forms import Sent, incomplete, is_account, refused
from services.console.admin.plan_forms import FIELDS, ROWS, field_of, read_plan
from services.console.apis import admin_auth, admin_billing
from services.console.apis import billing as billing_api
from services.console.apis.calls import Api, ApiProblem, ApiUnavailable, Part, TokenRejected, load
from services.console.design.locales import show_money
from services.console.design.pages import locale_of, see_other, show, show_with_late_part
from services.console.sessions.flashes import Flash, write_flash
from services.console.sessions.guards import Administrator, SentForm
from services.console.sessions.visitors import Session
from services.console.state import Apis, AppApis
from services.console.usage.figures import offered_months, read_month

router = new_router(prefix="/admin/plans", tag="administration")

_MAX_DRAWN = 10
_MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class Change:
    """What an account paid, and would have paid."""

    account: str
    before: Decimal
    after: Decimal

    @property
    def difference(self) -> Decimal:
        """What the account would have paid more."""
        return self.after - self.before


@router.get("")
async def plans_page(request: Request, session: Administrator, apis: AppApis) -> Response:
    """List the plans, and show the form of a new one."""
    return await _show(request, session, apis, Sent())


@router.post("")
async def publish_plan(
    request: Request, session: Administrator, form: SentForm, apis: AppApis
) -> Response:
    """Store a plan; the same form again stores nothing new."""
    plan, errors = read_plan(form)
    if errors:
        return await _show(request, session, apis, incomplete("plan", form, errors))
    try:
        stored = await admin_billing.create_plan(apis.billing, token=session.token, plan=plan)
    except ApiProblem as problem:
        placed = _placed(problem, form)
        return await _show(request, session, apis, refused("plan", form, placed, shown=FIELDS))
    except ApiUnavailable as error:
        return await _show(request, session, apis, refused("plan", form, error, shown=FIELDS))
    flash = Flash("success", f"The plan “{stored['name']}” is published. Put accounts on it next.")
    return write_flash(request, see_other("/admin/plans"), flash)


@router.get("/preview")
async def preview_page(
    request: Request,
    session: Administrator,
    apis: AppApis,
    plan: str = "",
    period: str = "",
    account: str = "",
) -> Response:
    """Replay a month under a plan: who would have paid more, and who less."""
    today, account = datetime.now(UTC).date(), account.strip().lower()
    month = read_month(period, today=today)
    errors = {"account": "Enter a whole account id."} if account and not is_account(account) else {}
    plans = await load(billing_api.list_plans(apis.billing, token=session.token))
    found = next((each for each in plans.value or () if each["id"] == plan), None)
    if plan and found is None and plans.value is not None:
        errors["plan"] = "There is no such plan."
    page: dict[str, Any] = {
        "plans": plans,
        "plan": found,
        "month": month,
        "months": offered_months(today=today),
        "account": account,
        "errors": errors,
    }
    if found is None or errors:
        status = 422 if errors else 200
        return show(request, "admin/plan_preview.html.j2", status=status, late=None, **page)
    asked = admin_billing.preview_plan(
        apis.billing,
        token=session.token,
        plan=plan,
        period=month.id,
        account=account or None,
    )
    locale = locale_of(request)
    return await show_with_late_part(
        request,
        "admin/plan_preview.html.j2",
        late_template="admin/plan_changes.html.j2",
        late=_compare(
            asked, apis.auth, token=session.token, currency=found["currency"], locale=locale
        ),
        **page,
    )


async def _compare(
    asked: Awaitable[dict[str, Any]], auth: Api, *, token: str, currency: str, locale: Locale
) -> dict[str, Any]:
    """Return what the page shows of a comparison."""
    emails: Mapping[str, str] = {}
    try:
        preview = await load(asked)
        changes = _changes(preview.value)
        listed = [each.account for each in changes[:_MAX_LISTED]]
        emails = (await load(admin_auth.find_emails(auth, token=token, ids=listed))).value or {}
    except TokenRejected:  # too late for a redirect
        preview, changes = Part(problem="Your session has ended. Sign in again to go on."), []
    return {
        "preview": preview,
        "emails": emails,
        "changes": changes[:_MAX_LISTED],
        "count": len(changes),
        "losers": sum(1 for each in changes if each.difference > 0),
        "winners": sum(1 for each in changes if each.difference < 0),
        "drawn": _drawn(changes, emails, currency, locale),
    }


async def _show(request: Request, session: Session, apis: Apis, sent: Sent) -> Response:
    plans = await load(billing_api.list_plans(apis.billing, token=session.token))
    return show(
        request,
        "admin/plans.html.j2",
        status=sent.status,
        notices=sent.notices,
        plans=plans,
        sent=sent,
        rows=ROWS,
    )


def _placed(problem: ApiProblem, form: Mapping[str, str]) -> ApiProblem:
    """Return a problem whose errors have the names of the form's fields."""
    errors = {field_of(each, form) or each: text for each, text in problem.errors.items()}
    return ApiProblem(problem.status, problem.code, problem.detail, errors=errors)


def _changes(preview: Mapping[str, Any] | None) -> list[Change]:
    """Return the accounts of a preview; those whose payment changes most come first."""
    found = [
        Change(each["account"], Decimal(each["before"]), Decimal(each["after"]))
        for each in (preview["accounts"] if preview else ())
    ]
    return sorted(found, key=lambda each: (-abs(each.difference), each.account))


def _drawn(
    changes: list[Change], emails: Mapping[str, str], currency: str | None, locale: Locale
) -> list[tuple[str, float, str]]:
    """Return the largest changes as points of a chart, from the largest loss to the largest win."""
    largest = sorted(changes[:_MAX_DRAWN], key=lambda each: -each.difference)
    return [
        (
            emails.get(each.account, f"{each.account[:13]}…"),
            float(each.difference),
            ("+" if each.difference > 0 else "") + show_money(each.difference, currency, locale),
        )
        for each in largest
        if each.difference
    ]
