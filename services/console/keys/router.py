"""API keys: create, show once, rotate with an overlap, delete."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from services.common.http.routing import new_router
from services.console.apis import keys as keys_api
from services.console.apis.calls import ApiProblem, ApiUnavailable, load
from services.console.design.form_errors import explain
from services.console.design.pages import see_other, show
from services.console.sessions.flashes import Flash, write_flash
from services.console.sessions.guards import RequireSession, SentForm
from services.console.sessions.once import form_id
from services.console.sessions.visitors import Session
from services.console.state import AppApis, AppOnce

router = new_router(tag="keys")

PAGE = "/keys"
OVERLAPS = {"0": "At once", "3600": "In an hour", "86400": "In a day", "604800": "In a week"}
_CREATED = "Copy the key “{name}” now: it is not shown again."
_FIELDS = ("name", "models", "expires_at", "allowed_ips")

KeyManager = Annotated[Session, Depends(RequireSession("keys:write"))]


@router.get("/keys")
async def keys_page(request: Request, session: KeyManager, apis: AppApis) -> Response:
    """Show the account's keys."""
    return await _show(request, session, apis)


@router.post("/keys")
async def create_key(
    request: Request, session: KeyManager, form: SentForm, apis: AppApis, once: AppOnce
) -> Response:
    """Create a key, and show it on the next page."""
    try:
        created = await once.run(
            form_id(session.id, form),
            lambda: keys_api.create_key(apis.auth, token=session.token, wanted=_wanted(form)),
        )
    except (ApiProblem, ApiUnavailable) as error:
        return await _show(request, session, apis, form=form, error=error)
    flash = Flash("success", _CREATED.format(name=created["name"]), secret=created["key"])
    return write_flash(request, see_other(PAGE), flash)


@router.post("/keys/{id}/rotate")
async def rotate_key(
    id: str, request: Request, session: KeyManager, form: SentForm, apis: AppApis, once: AppOnce
) -> Response:
    """Replace a key, and show the new one on the next page."""
    overlap = form.get("overlap", "0")
    seconds = int(overlap) if overlap in OVERLAPS else 0
    created = await once.run(
        form_id(session.id, form),
        lambda: keys_api.rotate_key(
            apis.auth, token=session.token, key_id=id, overlap_seconds=seconds
        ),
    )
    flash = Flash("success", _CREATED.format(name=created["name"]), secret=created["key"])
    return write_flash(request, see_other(PAGE), flash)


@router.post("/keys/{id}/delete")
async def delete_key(
    id: str, request: Request, session: KeyManager, form: SentForm, apis: AppApis
) -> Response:
    """Delete a key; one that is gone already stays so."""
    try:
        await keys_api.delete_key(apis.auth, token=session.token, key_id=id)
    except ApiProblem as problem:
        if problem.status != 404:
            raise
    return write_flash(request, see_other(PAGE), Flash("success", "The key is deleted."))


def _wanted(form: Mapping[str, str]) -> dict[str, Any]:
    """Return the key that a form asks for, as auth reads it."""
    wanted: dict[str, Any] = {
        "name": form.get("name", "").strip(),
        "mode": form.get("mode", "live"),
    }
    for name in ("models", "allowed_ips"):
        words = form.get(name, "").replace(",", " ").split()
        if words:
            wanted[name] = words
    if expires_on := form.get("expires_at", "").strip():
        wanted["expires_at"] = f"{expires_on}T00:00:00Z" if len(expires_on) == 10 else expires_on
    return wanted


async def _show(
    request: Request,
    session: Session,
    apis: AppApis,
    *,
    form: Mapping[str, str] | None = None,
    error: ApiProblem | ApiUnavailable | None = None,
) -> Response:
    unavailable = "Auth is unavailable; the key was not created."
    status, errors, notices = explain(error, fields=_FIELDS, unavailable=unavailable)
    return show(
        request,
        "keys/keys.html.j2",
        status=status,
        notices=notices,
        keys=await load(keys_api.list_keys(apis.auth, token=session.token)),
        form=form or {},
        errors=errors,
        overlaps=list(OVERLAPS.items()),
    )
