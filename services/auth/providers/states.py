"""What a sign-in at a provider carries along, bound to the browser that began it. No I/O.

Everything is derived from the secret in the browser's cookie, so that nothing must be stored before
a person has signed in, and a response that another browser began is worthless. Signing in replaces
the cookie, so a state is good once.
"""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from typing import Any

LIFETIME_S = 600
MAX_CHARS = 4000


@dataclass(frozen=True, slots=True)
class State:
    """A sign-in at a provider that has begun."""

    provider: str
    back: str
    """Where to go on afterwards."""
    began_at: int
    """Seconds since the epoch."""
    salt: str


@dataclass(frozen=True, slots=True)
class Link:
    """A person at a provider who may be linked to the user that signs in with the password."""

    issuer: str
    subject: str
    email: str
    began_at: int
    """Seconds since the epoch."""


def new_state(*, provider: str, back: str, now: float) -> State:
    """Return a state that begins now."""
    return State(provider, back, int(now), secrets.token_urlsafe(16))


def seal(content: State | Link, *, secret: str) -> str:
    """Return text that only this browser can send back.

    Args:
        secret: that of its cookie.
    """
    payload = _encode(json.dumps(asdict(content)).encode())
    return f"{payload}.{_mac(secret, type(content).__name__, payload)}"


def open_state(text: str, *, secret: str | None, now: float) -> State | None:
    """Return what was sealed for this browser at most `LIFETIME_S` ago; None for other text."""
    content = _open(text, State.__name__, secret=secret, now=now)
    return None if content is None else State(**content)


def open_link(text: str, *, secret: str | None, now: float) -> Link | None:
    """Return what was sealed for this browser at most `LIFETIME_S` ago; None for other text."""
    content = _open(text, Link.__name__, secret=secret, now=now)
    return None if content is None else Link(**content)


def nonce_of(state: State, *, secret: str) -> str:
    """Return the nonce of a request."""
    return _mac(secret, "nonce", state.salt)


def verifier_of(state: State, *, secret: str) -> str:
    """Return the PKCE verifier of a request (RFC 7636)."""
    return _mac(secret, "verifier", state.salt)


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a verifier."""
    return _encode(hashlib.sha256(verifier.encode()).digest())


def _open(text: str, kind: str, *, secret: str | None, now: float) -> dict[str, Any] | None:
    payload, _, mac = text.partition(".")
    if secret is None or len(text) > MAX_CHARS or not text.isascii():
        return None
    if not hmac.compare_digest(mac, _mac(secret, kind, payload)):
        return None
    content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return content if now < content["began_at"] + LIFETIME_S else None


def _mac(secret: str, purpose: str, text: str) -> str:
    digest = hmac.new(secret.encode(), f"{purpose}.{text}".encode(), hashlib.sha256).digest()
    return _encode(digest)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
