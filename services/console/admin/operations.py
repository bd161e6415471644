"""The journals that usage comes from, and the audit log."""

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.forms import is_account
from services.console.admin.health import order_journals
from services.console.apis import admin_auth, admin_billing
from services.console.apis.calls import Part, load
from services.console.design.pages import show
from services.console.sessions.guards import Administrator
from services.console.state import AppApis

router = new_router(prefix="/admin", tag="administration")

_MAX_JOURNALS = 100
_ENTRIES = 50


@router.get("/journals")
async def journals_page(request: Request, session: Administrator, apis: AppApis) -> Response:
    """Show what has arrived of each journal, and what is missing."""
    found = await load(admin_billing.list_journals(apis.billing, token=session.token))
    ordered = (
        Part(problem=found.problem) if found.value is None else Part(order_journals(found.value))
    )
    return show(request, "admin/journals.html.j2", journals=ordered, max_listed=_MAX_JOURNALS)


@router.get("/audit")
async def audit_page(
    request: Request, session: Administrator, apis: AppApis, cursor: str = ""
) -> Response:
    """Show who did what, when and from where."""
    page = await load(
        admin_auth.list_audit(apis.auth, token=session.token, cursor=cursor, limit=_ENTRIES)
    )
    entries = page.value["entries"] if page.value else []
    named = {entry[role] or "" for entry in entries for role in ("actor", "target")}
    emails = await load(
        admin_auth.find_emails(apis.auth, token=session.token, ids=filter(is_account, named))
    )
    return show(
        request,
        "admin/audit.html.j2",
        page=page,
        emails=emails.value or {},
        is_first=not cursor,
    )
