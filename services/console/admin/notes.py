"""Notes on an account, which only administrators see."""

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.accounts import account_of, show_account
from services.console.admin.forms import Sent, incomplete, refused
from services.console.apis import admin_auth
from services.console.apis.calls import ApiProblem, ApiUnavailable
from services.console.design.pages import see_other
from services.console.sessions.flashes import Flash, write_flash
from services.console.sessions.guards import Administrator, SentForm
from services.console.sessions.once import form_id
from services.console.state import AppApis, AppOnce

router = new_router(prefix="/admin/accounts/{id}/notes", tag="administration")

_AWAY = "Auth does not answer. Reload the page to see whether the note is there before you retry."


@router.post("")
async def add_note(
    id: str,
    request: Request,
    session: Administrator,
    form: SentForm,
    apis: AppApis,
    once: AppOnce,
) -> Response:
    """Note something on the account."""
    account, text = account_of(id), form.get("text", "")
    if not text.strip():
        sent = incomplete("note", form, {"text": "Write something first."})
        return await show_account(request, session, apis, account, sent)
    try:
        await once.run(
            form_id(session.id, form),
            lambda: admin_auth.add_note(apis.auth, token=session.token, account=account, text=text),
        )
    except ApiProblem as problem:
        sent = refused("note", form, problem, shown=("text",))
        return await show_account(request, session, apis, account, sent)
    except ApiUnavailable:
        sent = Sent("note", form, notices=(Flash("danger", _AWAY),), status=503)
        return await show_account(request, session, apis, account, sent)
    flash = Flash("success", "The note is saved.")
    return write_flash(request, see_other(f"/admin/accounts/{account}#notes"), flash)


@router.post("/{note}/delete")
async def delete_note(
    id: str, note: str, request: Request, session: Administrator, form: SentForm, apis: AppApis
) -> Response:
    """Delete a note; one that is gone already stays so."""
    account = account_of(id)
    try:
        await admin_auth.delete_note(apis.auth, token=session.token, note=note)
    except ApiProblem as problem:
        if problem.status != 404:
            raise
    flash = Flash("success", "The note is deleted.")
    return write_flash(request, see_other(f"/admin/accounts/{account}#notes"), flash)
