"""Who visits: the cookies of the console, and the CSRF tokens of its forms.

A *browser* cookie is a random secret that binds forms and sign-ins of visitors who are signed out
to the browser they were shown to. The *session* cookie is sealed; it contains the tokens of someone
who is signed in. Its id is fresh at each sign-in, so that a cookie that someone planted in a
browser before is worthless afterwards (session fixation).
"""

import re
import secrets
import time
from dataclasses import asdict, dataclass, replace

from fastapi import Request, Response

from services.console.sessions.sealing import Sealer

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_BROWSER_SECONDS = 180 * 24 * 3600
_SHORT = 40
"""Characters of an address or a name in a cookie that would otherwise be too long."""
MAX_COOKIE_BYTES = 4000
"""Browsers ignore a cookie of more than 4096 bytes, with its name and attributes."""


@dataclass(frozen=True, slots=True)
class Session:
    """Someone who is signed in, for one of their accounts. Times are seconds since the epoch."""

    id: str
    """Random, for the CSRF tokens of the session's forms."""
    user_id: str
    email: str
    account: str
    account_name: str | None
    """The name of the organisation; None for the personal account."""
    role: str
    scopes: tuple[str, ...]
    token: str
    """The access token."""
    expires_at: int
    """When the token expires."""
    renew_at: int
    """From when a new token is requested while the visitor navigates."""
    id_token: str | None = None
    """Identifies the sign-in at auth; None after a registration, which is no sign-in there."""

    def may(self, scope: str) -> bool:
        """Return whether the session's token has a scope."""
        return scope in self.scopes

    @property
    def is_personal(self) -> bool:
        """Whether the account is the visitor's own."""
        return self.account == self.user_id

    def renewed_later(self, *, seconds: int) -> "Session":
        """Return the same session, which is not renewed for a while."""
        return replace(self, renew_at=int(time.time()) + seconds)


@dataclass(frozen=True, slots=True)
class Cookies:
    """How the console's cookies are named, sealed and sent.

    Args:
        secure: whether browsers reach the console over HTTPS. The prefix `__Host-` then keeps other
            hosts of the same domain from setting the cookies.
    """

    sealer: Sealer
    secure: bool

    def read_session(self, request: Request) -> Session | None:
        """Return the session in a request's cookie, even if its token has expired."""
        sealed = self.read(request, "tollgate-console")
        document = self.sealer.unseal(sealed, purpose="session") if sealed else None
        try:
            return Session(**document | {"scopes": tuple(document["scopes"])}) if document else None
        except (KeyError, TypeError):  # of another release
            return None

    def write_session(self, response: Response, session: Session) -> None:
        """Set the session's cookie until the browser is closed; long names are shortened in it."""
        sealed = self.sealer.seal(asdict(session), purpose="session")
        if len(sealed) > MAX_COOKIE_BYTES:
            name = session.account_name[:_SHORT] if session.account_name else None
            short = replace(session, email=session.email[:_SHORT], account_name=name)
            sealed = self.sealer.seal(asdict(short), purpose="session")
        self.write(response, "tollgate-console", sealed, max_age=None)

    def delete_session(self, response: Response) -> None:
        """Delete the session's cookie."""
        self.write(response, "tollgate-console", "", max_age=0)

    def read_browser(self, request: Request) -> str | None:
        """Return the secret in a request's cookie; None if it has none, or an impossible one."""
        secret = self.read(request, "tollgate-browser")
        return secret if _SECRET.fullmatch(secret) else None

    def write_browser(self, response: Response, secret: str) -> None:
        """Set the cookie with the browser's secret."""
        self.write(response, "tollgate-browser", secret, max_age=_BROWSER_SECONDS)

    def read(self, request: Request, name: str) -> str:
        """Return the value of a cookie, or an empty text."""
        return request.cookies.get(self._name(name), "")

    def _name(self, name: str) -> str:
        return f"__Host-{name}" if self.secure else name

    def write(self, response: Response, name: str, value: str, *, max_age: int | None) -> None:
        """Set a cookie for `max_age` seconds, or until the browser is closed."""
        response.set_cookie(
            self._name(name),
            value,
            max_age=max_age,
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sends a request, and what proves that a form was shown to them."""

    session: Session | None
    """The session, if its token is valid."""
    expired: Session | None
    """The session, if its token has expired."""
    browser: str
    is_new: bool
    """Whether the browser must still be given the cookie with its secret."""

    @property
    def csrf_text(self) -> str:
        """What the CSRF tokens of the visitor's forms are derived from."""
        return f"session {self.session.id}" if self.session else f"browser {self.browser}"


def read_visitor(request: Request) -> Visitor:
    """Return who sends a request; the same for the whole request."""
    known: Visitor | None = getattr(request.state, "visitor", None)
    if known is None:
        cookies: Cookies = request.app.state.cookies
        found = cookies.read_session(request)
        browser = cookies.read_browser(request)
        valid = found is not None and time.time() < found.expires_at
        known = Visitor(
            session=found if valid else None,
            expired=None if valid else found,
            browser=browser or new_secret(),
            is_new=browser is None,
        )
        request.state.visitor = known
    return known


def is_refresh(request: Request) -> bool:
    """Return whether the script of an open page requests its latest figures.

    Such a request neither takes what the next page is to show once, nor renews the session.
    """
    return request.headers.get("x-refresh") == "1"


def csrf_token(request: Request) -> str:
    """Return the CSRF token of the visitor's forms."""
    cookies: Cookies = request.app.state.cookies
    return cookies.sealer.sign(read_visitor(request).csrf_text)


def new_secret() -> str:
    """Return 256 random bits."""
    return secrets.token_urlsafe(32)
