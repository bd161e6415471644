"""From a bearer token to a `Caller`: RFC 9068 access tokens, verified strictly and then remembered.

python-jose checks the signature; everything it is lenient about is checked here first: canonical
base64url, duplicate members, unknown header parameters, `typ`, `kid`, claim types and lifetimes
(RFC 8725, RFC 9068 §4). Whatever fails, the answer is the same 401.
"""

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, cast

import httpx
from fastapi import Depends, Request
from fastapi.openapi.models import OAuth2, OAuthFlowPassword, OAuthFlows
from fastapi.security.base import SecurityBase
from jose import jwk, jwt
from jose.backends.base import Key

from services.common.contracts import AUDIENCE
from services.common.errors import InsufficientScope, Unauthenticated, Unavailable

ALGORITHM = "RS256"
TOKEN_TYPE = "at+jwt"  # noqa: S105
MAX_TOKEN_BYTES = 8 * 1024
LEEWAY_S = 120
"""How far the clocks of two services may differ (docs/operations.md)."""
MAX_LIFETIME_S = 24 * 3600
MIN_RSA_BITS = 2048

SCOPES = {
    "predict": "Call models.",
    "usage:read": "Read your usage, balance and invoices.",
    "billing:write": "Report usage and ask for leases (services only).",
    "admin": "Administer accounts, plans and money.",
}

_SEGMENT = re.compile(rb"[A-Za-z0-9_-]+")
_HEADER_MEMBERS = {"alg", "typ", "kid"}
# python-jose would check the times by the machine's clock; `_check_times` does it instead.
_JOSE_OPTIONS = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat")} | {
    f"require_{claim}": True for claim in ("iss", "sub", "aud", "jti")
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, as a verified token says."""

    account: str
    client_id: str
    scopes: frozenset[str]
    expires_at: int
    """Seconds since the epoch."""


class KeySource(Protocol):
    """Where verification keys come from: the issuer's JWKS, or a service's own ring."""

    async def find(self, kid: str) -> Key | None:
        """The key with this id, or None; raises `Unavailable` if keys cannot be had at all."""
        ...


class TokenVerifier:
    """Turns tokens into callers and remembers the answer until the token expires.

    Args:
        keys: where keys come from.
        issuer: the only accepted `iss`.
        clock: seconds since the epoch.
        remember: how many verified tokens to hold.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str,
        clock: Callable[[], float] = time.time,
        remember: int = 50_000,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._clock = clock
        self._remember = remember
        self._known: dict[bytes, Caller] = {}

    def recall(self, token: bytes) -> Caller | None:
        """The caller of a token verified before and not yet expired; no I/O, no cryptography."""
        caller = self._known.get(token)
        if caller is not None and self._clock() >= caller.expires_at + LEEWAY_S:
            del self._known[token]
            return None
        return caller

    async def verify(self, token: bytes) -> Caller:
        """The caller of a token.

        Raises:
            Unauthenticated: anything about the token does not hold.
            Unavailable: the issuer's keys have never been seen and cannot be fetched.
        """
        if known := self.recall(token):
            return known
        try:
            header = _strict_header(token)
            key = await self._keys.find(header["kid"])
            if key is None:
                raise Unauthenticated()
            caller = self._check_claims(token, key)
        except (Unauthenticated, Unavailable):
            raise
        except Exception as error:  # python-jose raises far more than its own errors
            raise Unauthenticated() from error
        if len(self._known) >= self._remember:
            self._known.pop(next(iter(self._known)))
        self._known[token] = caller
        return caller

    def forget(self) -> None:
        """Verify every token anew: a key has been withdrawn."""
        self._known.clear()

    def _check_claims(self, token: bytes, key: Key) -> Caller:
        claims = jwt.decode(
            token.decode("ascii"),
            key,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=self._issuer,
            options=_JOSE_OPTIONS,
        )
        _json_object(_decode(token.split(b".")[1]))
        _check_times(claims, now=self._clock())
        texts = [claims[name] for name in ("sub", "jti", "client_id")]
        if not all(isinstance(text, str) and text for text in texts):
            raise ValueError("an identity is missing")
        return Caller(
            account=claims["sub"],
            client_id=claims["client_id"],
            scopes=frozenset(claims["scope"].split(" ")),
            expires_at=claims["exp"],
        )


def _check_times(claims: Mapping[str, Any], *, now: float) -> None:
    """Check when a token is good, by a clock that may differ from the issuer's by `LEEWAY_S`.

    Raises:
        ValueError: it is not good yet, or no longer, or for longer than any token is.
    """
    issued, expires, begins = claims["iat"], claims["exp"], claims.get("nbf", 0)
    if any(type(moment) is not int for moment in (issued, expires, begins)):
        raise ValueError("times are whole seconds")
    if max(issued, begins) > now + LEEWAY_S or expires <= now - LEEWAY_S:
        raise ValueError("not within its lifetime")
    if not 0 < expires - issued <= MAX_LIFETIME_S:
        raise ValueError("lives too long")


def _strict_header(token: bytes) -> dict[str, str]:
    """The header of a compact JWS that is canonical and says only what we sign.

    Raises:
        ValueError: anything else.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise ValueError("too long")
    segments = token.split(b".")
    if len(segments) != 3:
        raise ValueError("not a compact JWS")
    for segment in segments:
        _decode(segment)
    raw = _decode(segments[0])
    if len(raw) > 1024:
        raise ValueError("header too long")
    header = _json_object(raw)
    if not set(header) <= _HEADER_MEMBERS or header.get("alg") != ALGORITHM:
        raise ValueError("unexpected header")
    if header.get("typ") != TOKEN_TYPE or not isinstance(header.get("kid"), str):
        raise ValueError("unexpected header")
    return cast(dict[str, str], header)


def _decode(segment: bytes) -> bytes:
    """Base64url, refusing every spelling but the canonical one (else a token has many texts)."""
    if not _SEGMENT.fullmatch(segment):
        raise ValueError("not base64url")
    raw = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != segment:
        raise ValueError("not canonical base64url")
    return raw


def _json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object without duplicate members: two readers would see two different tokens."""
    value = json.loads(raw, object_pairs_hook=_unique)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate members")
    return members


# -- the issuer's keys ---------------------------------------------------------------------------


def public_key(document: Mapping[str, Any]) -> tuple[str, Key]:
    """The id and prepared key of one JWK.

    Raises:
        ValueError: not an RSA signing key of at least 2048 bits.
    """
    if document.get("kty") != "RSA" or document.get("use", "sig") != "sig":
        raise ValueError("not an RSA signing key")
    if document.get("alg", ALGORITHM) != ALGORITHM or not isinstance(document.get("kid"), str):
        raise ValueError("not a key for our algorithm")
    modulus = base64.urlsafe_b64decode(str(document["n"]) + "==")
    if len(modulus.lstrip(b"\0")) * 8 < MIN_RSA_BITS:
        raise ValueError("the key is too short")
    return document["kid"], jwk.construct(dict(document), ALGORITHM)


class IssuerKeys:
    """The keys an issuer publishes (RFC 7517), kept in memory.

    They are fetched when first needed, again every `max_age_s`, and on an unknown `kid` at most
    every `cooldown_s`, so that forged tokens cannot make us hammer the issuer. While the issuer is
    away the keys at hand go on serving.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        issuer: str,
        *,
        cooldown_s: float = 30.0,
        max_age_s: float = 300.0,
        on_withdrawal: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._url = f"{issuer}/.well-known/jwks.json"
        self._cooldown_s = cooldown_s
        self._max_age_s = max_age_s
        self.on_withdrawal = on_withdrawal
        self._keys: dict[str, Key] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def find(self, kid: str) -> Key | None:
        key = self._keys.get(kid)
        age_s = time.monotonic() - self._fetched_at
        if key is None or age_s > self._max_age_s:
            await self.refresh()
            key = self._keys.get(kid)
        if key is None and not self._keys:
            raise Unavailable("The issuer's keys cannot be fetched right now.")
        return key

    async def refresh(self) -> None:
        """Fetch the key set unless that was tried a moment ago; on failure keep what is at hand."""
        async with self._fetching:
            pause_s = self._cooldown_s if self._keys else 1.0
            if time.monotonic() - self._tried_at < pause_s:
                return
            self._tried_at = time.monotonic()
            try:
                response = await asyncio.shield(self._client.get(self._url))
                response.raise_for_status()
                keys = dict(public_key(document) for document in response.json()["keys"])
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                return
            withdrawn = self._keys.keys() - keys.keys()
            self._keys, self._fetched_at = keys, time.monotonic()
            if withdrawn:
                self.on_withdrawal()

    async def check(self) -> str | None:
        """Readiness: None once keys are at hand."""
        if not self._keys:
            await self.refresh()
        return None if self._keys else "The issuer's keys have not been fetched."


# -- FastAPI -------------------------------------------------------------------------------------


def bearer_token(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The bearer token of a request's raw headers (RFC 6750 §2.1).

    Raises:
        Unauthenticated: none, or more than one.
    """
    found = [value for name, value in headers if name == b"authorization"]
    if not found:
        raise Unauthenticated(token_given=False)
    scheme, _, token = found[0].partition(b" ")
    if len(found) > 1 or scheme.lower() != b"bearer" or not token:
        raise Unauthenticated()
    return token


class RequireScope(SecurityBase):
    """A dependency that yields the `Caller` and refuses tokens without a scope.

    `GuardedRoute` calls it before the body is read.
    """

    def __init__(self, scope: str | None = None) -> None:
        self.scope = scope
        self.scheme_name = "account"
        self.model = OAuth2(  # the token URL is filled in when the schema is made
            flows=OAuthFlows(password=OAuthFlowPassword(tokenUrl="", scopes=SCOPES))
        )

    async def __call__(self, request: Request) -> Caller:
        verifier: TokenVerifier = request.app.state.verifier
        caller = await verifier.verify(bearer_token(request.scope["headers"]))
        if self.scope is not None and self.scope not in caller.scopes:
            raise InsufficientScope(self.scope)
        return caller


AnyCaller = Annotated[Caller, Depends(RequireScope())]
