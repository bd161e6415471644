"""What the routes for browsers have in common: the cookie, the form, and its CSRF token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response

from services.auth.audit.failures import FailureLog
from services.auth.audit.requests import client_address
from services.auth.openid.pages import stale_form_page
from services.auth.openid.returns import Return, read_return
from services.auth.pages.forms import read_fields
from services.auth.sessions.cookies import BrowserCookie, is_csrf_token, new_secret


@dataclass(frozen=True, slots=True)
class Browser:
    """The browser that sends a request."""

    cookie: BrowserCookie
    secret: str | None
    """The secret in its cookie, if it sends one."""
    providers: Sequence[str] = ()
    """The providers that its person may sign in with instead."""

    def identify(self) -> str:
        """Return the secret with which the forms of the response are protected."""
        return self.secret or new_secret()

    def remember(self, response: Response, secret: str) -> Response:
        """Return the response, which gives the browser this cookie unless it has it."""
        if secret != self.secret:
            self.cookie.write(response, secret)
        return response


async def _browser(request: Request) -> Browser:
    cookie: BrowserCookie = request.app.state.browser_cookie
    return Browser(cookie, cookie.read(request), request.app.state.providers.names)


def read_query(request: Request) -> str:
    """Return the query of the address, still encoded."""
    query: bytes = request.scope["query_string"]
    return query.decode("ascii", "replace")


AppBrowser = Annotated[Browser, Depends(_browser)]


@dataclass(frozen=True, slots=True)
class SentForm:
    """A form that auth showed to this browser, and that the browser sent."""

    fields: Mapping[str, str]
    secret: str
    """The secret in the browser's cookie."""
    back: Return | None
    """Where to go on; None if the form names no page."""

    def require_back(self) -> Return:
        """Return where to go on.

        Raises:
            StaleFormError: the form names no page.
        """
        if self.back is None:
            raise StaleFormError(None)
        return self.back


class StaleFormError(Exception):
    """A form was not shown to this browser, or too long ago; `show_stale_form` answers.

    Args:
        back: where its person can begin again.
    """

    def __init__(self, back: Return | None) -> None:
        super().__init__("a form without a valid CSRF token")
        self.back = back


async def read_sent_form(
    request: Request, browser: Browser, *, start: Return | None = None
) -> SentForm:
    """Read a form and check its CSRF token.

    Args:
        start: where its person can begin again if the form names no page.

    Raises:
        StaleFormError: the token is not the browser's.
    """
    fields = await read_fields(request)
    back = read_return(fields.get("continue", ""))
    secret = browser.secret
    if secret is None or not is_csrf_token(fields.get("csrf", ""), secret=secret):
        raise StaleFormError(back or start)
    return SentForm(fields, secret, back)


async def show_stale_form(request: Request, error: StaleFormError) -> Response:
    """Note an error, and show a page for it."""
    failures: FailureLog = request.app.state.failures
    failures.note("csrf_rejected", target=request.url.path, address=client_address(request))
    return stale_form_page(error.back)
