"""What the routes for browsers have in common: the cookie, the form, and its CSRF token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response

from services.auth.openid.returns import Return, read_return
from services.auth.pages.forms import read_fields
from services.auth.sessions.cookies import BrowserCookie, is_csrf_token, new_secret
from services.auth.tokens.service import Issuer


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


def _browser(request: Request) -> Browser:
    cookie: BrowserCookie = request.app.state.browser_cookie
    return Browser(cookie, cookie.read(request), request.app.state.providers.names)


def read_query(request: Request) -> str:
    """Return the query of the address, still encoded."""
    query: bytes = request.scope["query_string"]
    return query.decode("ascii", "replace")


def _issuer(request: Request) -> Issuer:
    issuer: Issuer = request.app.state.issuer
    return issuer


AppBrowser = Annotated[Browser, Depends(_browser)]
AppIssuer = Annotated[Issuer, Depends(_issuer)]


@dataclass(frozen=True, slots=True)
class SentForm:
    """A form that a browser sent."""

    fields: Mapping[str, str]
    is_genuine: bool
    """Whether auth showed it to this browser: its CSRF token matches."""
    back: Return | None
    """Where to go on; None if the form names no page."""


async def read_sent_form(request: Request, browser: Browser) -> SentForm:
    """Read a form and check its CSRF token."""
    fields = await read_fields(request)
    genuine = is_csrf_token(fields.get("csrf", ""), secret=browser.secret)
    return SentForm(fields, genuine, read_return(fields.get("continue", "")))
