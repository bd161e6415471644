"""The cookie that identifies a browser, and the CSRF tokens of its forms.

Every browser that is shown a form gets a random cookie. Signing in replaces it, so that a cookie
that someone planted in a browser before is worthless afterwards (session fixation). A form's token
is derived from the cookie, which no other site can read.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from fastapi import Request, Response

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class BrowserCookie:
    """How the cookie is named and sent."""

    secure: bool
    """Whether browsers reach auth over HTTPS. The prefix `__Host-` then keeps other hosts of the
    same domain from setting the cookie."""

    @property
    def name(self) -> str:
        return "__Host-tollgate-auth" if self.secure else "tollgate-auth"

    def read(self, request: Request) -> str | None:
        """Return the secret in a request's cookie; None if it has none, or an impossible one."""
        secret = request.cookies.get(self.name, "")
        return secret if _SECRET.fullmatch(secret) else None

    def write(self, response: Response, secret: str) -> None:
        """Set the cookie until the browser is closed; the database decides when it expires."""
        response.set_cookie(
            self.name, secret, path="/", secure=self.secure, httponly=True, samesite="lax"
        )


def new_secret() -> str:
    """Return 256 random bits."""
    return secrets.token_urlsafe(32)


def csrf_token(secret: str) -> str:
    """Return the token of the forms of the browser that has this secret."""
    digest = hmac.new(secret.encode(), b"csrf", hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def is_csrf_token(token: str, *, secret: str | None) -> bool:
    """Return whether a form that was sent with this token was shown to the browser that sends it.

    Args:
        secret: that of the browser's cookie.
    """
    if secret is None:
        return False
    return hmac.compare_digest(token.encode("utf-8", "replace"), csrf_token(secret).encode())
