"""What a page needs: a session, or perhaps one; and forms that the console itself has shown."""

import time
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, HTTPException, Request

from services.common.errors import ServiceError
from services.common.http.forms import FORM, parse_form
from services.common.identity.guards import Guard
from services.console.sessions.returns import page_of
from services.console.sessions.visitors import Cookies, Session, is_refresh, read_visitor

_MAX_FIELDS = 1000
"""A playground has a field for each column of a model."""
_REFUSED = "Your role in this account may not use this page."
_REFUSALS = {"admin": "This page is for administrators."}
"""What a page shows to those who lack its scope, if not `_REFUSED`."""


class SignInNeeded(ServiceError):
    """The visitor must sign in, or the browser must fetch a new token from auth."""

    status = 303
    code = "sign_in_needed"
    detail = "Please sign in."

    def __init__(self, *, return_to: str, silent: bool, lost: bool = False) -> None:
        target = f"/sign-in?return_to={quote(return_to, safe='')}"
        target += "&silent=1" if silent else ""
        target += "&lost=1" if lost else ""
        super().__init__(headers={"Location": target, "Cache-Control": "no-store"})


class FormExpired(ServiceError):
    """A form was not shown to this browser, or before the visitor signed in or out."""

    status = 403
    code = "form_expired"
    detail = (
        "This form has expired, or your browser sends no cookies. Nothing was changed: go back, "
        "reload the page and try again."
    )


def find_session(request: Request) -> Session | None:
    """Return the session of a request, or None.

    Raises:
        SignInNeeded: the session should be renewed first, which the visitor does not notice.
    """
    visitor = read_visitor(request)
    known = visitor.session or visitor.expired
    if (
        known is not None
        and known.id_token is not None  # auth has a session of the visitor, too
        and request.method in ("GET", "HEAD")
        and time.time() >= known.renew_at
        and not is_refresh(request)
    ):
        raise SignInNeeded(return_to=_address(request), silent=True)
    return visitor.session


class RequireSession(Guard):
    """A dependency that returns the session; without one, the visitor is sent to sign in."""

    def __init__(self, scope: str | None = None) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Session:
        session = find_session(request)
        if session is not None:
            if self.scope is not None and not session.may(self.scope):
                raise HTTPException(403, _REFUSALS.get(self.scope, _REFUSED))
            return session
        if request.method in ("GET", "HEAD"):
            raise SignInNeeded(return_to=_address(request), silent=False)
        raise SignInNeeded(return_to=page_of(request.scope["path"]), silent=False, lost=True)


async def _optional(request: Request) -> Session | None:
    return find_session(request)


SignedIn = Annotated[Session, Depends(RequireSession())]
"""The session of a page that only people who are signed in may see."""
Administrator = Annotated[Session, Depends(RequireSession("admin"))]
"""The session of a page for administrators."""
MaybeSignedIn = Annotated[Session | None, Depends(_optional)]
"""The session of a page that everyone may see, or None."""


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form that the console has shown to this visitor.

    Raises:
        FormExpired: the CSRF token is missing or another visitor's.
        HTTPException: it is no form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HTTPException(415, "Only forms are accepted.")
    try:
        fields = dict(parse_form(await request.body(), max_fields=_MAX_FIELDS))
    except ValueError as error:
        raise HTTPException(400, "The form is malformed.") from error
    check_token(request, fields.pop("csrf", ""))
    return fields


def check_token(request: Request, token: str) -> None:
    """Check the CSRF token of a form.

    Raises:
        FormExpired: it is missing or another visitor's.
    """
    cookies: Cookies = request.app.state.cookies
    visitor = read_visitor(request)
    if visitor.is_new and visitor.session is None:
        raise FormExpired()
    if not cookies.sealer.is_signed(token, text=visitor.csrf_text):
        raise FormExpired()


SentForm = Annotated[Mapping[str, str], Depends(read_form)]
"""The fields of a form; empty ones are left out."""


def _address(request: Request) -> str:
    query: bytes = request.scope["query_string"]
    path = quote(request.scope["path"])
    return f"{path}?{query.decode('ascii', 'replace')}" if query else path
