"""The visitor's organisations: switch between accounts, create one, manage members and roles."""

from collections.abc import Mapping

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.apis import auth as auth_api
from services.console.apis import members as members_api
from services.console.apis.calls import ApiProblem, ApiUnavailable, Part, load
from services.console.apis.members import Members
from services.console.design.form_errors import explain
from services.console.design.pages import see_other, show
from services.console.sessions.flashes import Flash, write_flash
from services.console.sessions.guards import SentForm, SignedIn
from services.console.sessions.once import form_id
from services.console.sessions.visitors import Session
from services.console.sign_in.router import begin_flow
from services.console.state import AppApis, AppOnce

router = new_router(tag="organisation")

PAGE = "/organisation"
ROLES = {
    "owner": "Owner: everything, and other owners",
    "admin": "Admin: everything but owners",
    "developer": "Developer: calls, keys and usage",
    "billing": "Billing: usage and invoices",
    "viewer": "Viewer: usage",
}


@router.get(PAGE)
async def organisation_page(request: Request, session: SignedIn, apis: AppApis) -> Response:
    """Show the visitor's accounts, and the members of the one they use."""
    return await _show(request, session, apis)


@router.post(PAGE)
async def create_organisation(
    request: Request, session: SignedIn, form: SentForm, apis: AppApis, once: AppOnce
) -> Response:
    """Create an organisation, and go on with it."""
    name = form.get("name", "").strip()
    try:
        created = await once.run(
            form_id(session.id, form),
            lambda: members_api.create_organisation(apis.auth, token=session.token, name=name),
        )
    except (ApiProblem, ApiUnavailable) as error:
        return await _show(request, session, apis, form=form, error=error)
    flash = Flash("success", f"“{created['name']}” is created. Switch to it to use it.")
    if session.id_token is None:  # auth would ask for the password first
        return write_flash(request, see_other(PAGE), flash)
    response = begin_flow(
        request, goal=PAGE, silent=True, account=created["id"], login_hint=session.email
    )
    return response


@router.post("/organisation/members")
async def put_member(
    request: Request, session: SignedIn, form: SentForm, apis: AppApis
) -> Response:
    """Add or invite a member, or change a role. A repeat changes nothing."""
    email, role = form.get("email", "").strip(), form.get("role", "viewer")
    try:
        invited = await members_api.put_member(
            apis.auth, token=session.token, organisation=session.account, email=email, role=role
        )
    except (ApiProblem, ApiUnavailable) as error:
        return await _show(request, session, apis, form=form, error=error)
    text = f"{email} is invited by e-mail." if invited else f"{email} has the role “{role}”."
    return write_flash(request, see_other(PAGE), Flash("success", text))


@router.post("/organisation/members/{id}/delete")
async def delete_member(
    id: str, request: Request, session: SignedIn, form: SentForm, apis: AppApis
) -> Response:
    """Remove a member, or withdraw an invitation; one who is gone already stays so."""
    try:
        await members_api.delete_member(
            apis.auth, token=session.token, organisation=session.account, member=id
        )
    except ApiProblem as problem:
        if problem.status != 404:
            return await _show(request, session, apis, error=problem)
    if id == session.user_id:  # they have left
        return begin_flow(request, goal=PAGE, silent=session.id_token is not None, account=None)
    return write_flash(request, see_other(PAGE), Flash("success", "The member is removed."))


async def _show(
    request: Request,
    session: Session,
    apis: AppApis,
    *,
    form: Mapping[str, str] | None = None,
    error: ApiProblem | ApiUnavailable | None = None,
) -> Response:
    unavailable = "Auth is unavailable; nothing was changed."
    status, errors, notices = explain(
        error, fields=("name", "email", "role"), unavailable=unavailable
    )
    members: Part[Members] | None = None
    if not session.is_personal:
        members = await load(
            members_api.list_members(apis.auth, token=session.token, organisation=session.account)
        )
    return show(
        request,
        "organisation/organisation.html.j2",
        status=status,
        notices=notices,
        organisations=await load(auth_api.list_organisations(apis.auth, token=session.token)),
        members=members,
        roles=list(ROLES.items()),
        form=form or {},
        errors=errors,
    )
