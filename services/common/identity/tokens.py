"""Turn credentials into a `Caller`: verify RFC 9068 access tokens strictly and cache them.

API keys are verified by `key_verifier` and cached like tokens.

python-jose's key verifies the signature. This module checks everything else, about which
python-jose is lenient: canonical base64url, duplicate members, unknown header parameters, `typ`,
`kid`, claim types and lifetimes (RFC 8725, RFC 9068 §4). Every failure results in the same 401.
"""

import asyncio
import hashlib
import time
from binascii import a2b_base64
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from services.common import strict_json
from services.common.contracts import AUDIENCE, RevocationRead
from services.common.errors import Unauthenticated, Unavailable
from services.common.identity.api_keys import looks_like_api_key
from services.common.identity.caller import Caller
from services.common.identity.issuer_keys import ALGORITHM, KeySource
from services.common.identity.key_verifier import KeyVerifier
from services.common.identity.rejections import RejectionLog
from services.common.identity.revocations import Revocations

TOKEN_TYPE = "at+jwt"  # noqa: S105
MAX_TOKEN_BYTES = 8 * 1024
LEEWAY_S = 120
"""How far the issuer's clock may be ahead (docs/operations.md). This never extends `exp`, which may
be the time when the client itself expires."""
MAX_LIFETIME_S = 24 * 3600
_SCAN_AT_ONCE = 1_000

MAX_HEADER_BYTES = 1024
_HEADER_MEMBERS = {"alg", "typ", "kid"}
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_LAST_CHARACTERS = (_ALPHABET, b"", _ALPHABET[::16], _ALPHABET[::4])
"""The last characters of canonical base64url, by the length of the text modulo 4."""


def token_digest(token: bytes) -> bytes:
    """Return the key of credentials in the cache, a third of a token's size."""
    return hashlib.sha256(token).digest()


class TokenVerifier:
    """Turns tokens and API keys into callers, and caches the result until it expires.

    Args:
        keys: the source of verification keys.
        issuer: the only accepted `iss`.
        api_keys: verifies API keys; None to reject them.
        revocations: those that this process knows; shared with `api_keys`.
        clock: returns seconds since the epoch.
        max_cached: the most verified tokens to cache, at about 400 bytes each.
        rejections: notes rejected credentials; see `guards.authenticate`.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str,
        api_keys: KeyVerifier | None = None,
        revocations: Revocations | None = None,
        clock: Callable[[], float] = time.time,
        max_cached: int = 1 << 17,
        rejections: RejectionLog | None = None,
    ) -> None:
        self.rejections = rejections
        self._keys = keys
        self._issuer = issuer
        self._api_keys = api_keys
        self._revocations = revocations or Revocations()
        self._clock = clock
        self._max_cached = max_cached
        self._known: dict[bytes, Caller] = {}

    def recall(self, digest: bytes) -> Caller | None:
        """Return the cached caller of the credentials with this `token_digest`, or None."""
        caller = self._known.get(digest)
        if caller is not None and self._clock() >= caller.expires_at:
            del self._known[digest]
            return None
        return caller

    async def verify(self, credentials: bytes) -> Caller:
        """Return the caller of a token or an API key.

        Raises:
            Unauthenticated: the credentials are invalid.
            Unavailable: they cannot be checked: the issuer's keys were never fetched and are
                unavailable now, or auth cannot be asked about an API key.
        """
        digest = token_digest(credentials)
        if cached := self.recall(digest):
            return cached
        if looks_like_api_key(credentials):
            if self._api_keys is None:
                raise Unauthenticated()
            caller = await self._api_keys.verify(credentials, digest)
        else:
            caller = await self._verify_token(credentials)
            if self._revocations.covers(caller):
                raise Unauthenticated()
        if len(self._known) >= self._max_cached:
            self._known.pop(next(iter(self._known)))
        self._known[digest] = caller
        return caller

    def forget(self) -> None:
        """Clear the cache, because a key was withdrawn."""
        self._known.clear()

    def forget_all(self) -> None:
        """Forget auth's answers about API keys too, and all revocations."""
        self.forget()
        self._revocations.clear()
        if self._api_keys is not None:
            self._api_keys.forget(lambda _: True)

    async def revoke(self, revoked: Sequence[RevocationRead]) -> None:
        """Apply new revocations, as auth has just reported them.

        The cache is large, so this pauses now and then to let requests go on.
        """
        if self._api_keys is not None:
            self._api_keys.contact_at = self._clock()
        if not revoked:
            return
        before = self._revocations.number
        self._revocations.add(revoked, now=self._clock())
        revocations = self._revocations

        def is_outdated(caller: Caller) -> bool:
            return revocations.covers(caller) or revocations.names_since(before, caller)

        if self._api_keys is not None:
            self._api_keys.forget(is_outdated)
        for number, (digest, caller) in enumerate(list(self._known.items())):
            if is_outdated(caller) and self._known.get(digest) is caller:
                del self._known[digest]
            if number % _SCAN_AT_ONCE == _SCAN_AT_ONCE - 1:
                await asyncio.sleep(0)

    async def _verify_token(self, token: bytes) -> Caller:
        try:
            header, payload, signature = _split(token)
            key = await self._keys.find(_key_id(header))
            signed = token[: -len(signature) - 1]
            if key is None or not key.verify(signed, _decode(signature)):
                raise Unauthenticated()
            return self._check_claims(_json_object(_decode(payload)))
        except (Unauthenticated, Unavailable):
            raise
        except Exception as error:  # whatever is wrong, the answer is the same
            raise Unauthenticated() from error

    def _check_claims(self, claims: dict[str, Any]) -> Caller:
        """Return the caller that verified claims describe.

        Raises:
            KeyError, ValueError: a claim is missing or invalid.
        """
        audience = claims["aud"]
        if audience != AUDIENCE and not (isinstance(audience, list) and AUDIENCE in audience):
            raise ValueError("another audience")
        if claims["iss"] != self._issuer:
            raise ValueError("another issuer")
        _check_times(claims, now=self._clock())
        account, client_id, token_id = claims["sub"], claims["client_id"], claims["jti"]
        for text in (account, client_id, token_id):
            if not text or not isinstance(text, str):
                raise ValueError("sub, jti or client_id is missing")
        return Caller(
            account=account,
            client_id=client_id,
            scopes=_scopes(claims["scope"]),
            expires_at=claims["exp"],
            token_id=token_id,
            user_id=_user_id(claims),
            issued_at=claims["iat"],
        )


@lru_cache(maxsize=1024)
def _scopes(text: str) -> frozenset[str]:
    """Return the scopes of a `scope` claim; tokens with the same ones share a set."""
    return frozenset(text.split(" "))


def _user_id(claims: Mapping[str, Any]) -> str | None:
    """Return the person whom a token was issued to.

    Raises:
        ValueError: the claim is not text.
    """
    user_id = claims.get("user_id")
    if user_id is not None and not isinstance(user_id, str):
        raise ValueError("user_id must be text")
    return claims["sub"] if user_id == claims["sub"] else user_id  # one text, not two


def _check_times(claims: Mapping[str, Any], *, now: float) -> None:
    """Check a token's times, allowing the issuer's clock to be ahead by `LEEWAY_S`.

    Raises:
        ValueError: the token is not valid yet, has expired, or has too long a lifetime.
    """
    issued, expires, begins = claims["iat"], claims["exp"], claims.get("nbf", 0)
    if not type(issued) is type(expires) is type(begins) is int:  # true is not a number
        raise ValueError("times must be whole seconds")
    if max(issued, begins) > now + LEEWAY_S or expires <= now:
        raise ValueError("not within its lifetime")
    if not 0 < expires - issued <= MAX_LIFETIME_S:
        raise ValueError("lifetime too long")


def _split(token: bytes) -> list[bytes]:
    """Return the three segments of a compact JWS.

    Raises:
        ValueError: the token is anything else, or too long.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise ValueError("too long")
    segments = token.split(b".")
    if len(segments) != 3 or not all(segments) or token.translate(None, _ALPHABET) != b"..":
        raise ValueError("not a compact JWS")
    return segments


@lru_cache(maxsize=64)
def _key_id(segment: bytes) -> str:
    """Return the `kid` of a header with the expected parameters only.

    All tokens of a key have the same header, so it is only parsed once.

    Raises:
        ValueError: the header is anything else.
    """
    raw = _decode(segment)
    if len(raw) > MAX_HEADER_BYTES:
        raise ValueError("header too long")
    header = _json_object(raw)
    if not set(header) <= _HEADER_MEMBERS or header.get("alg") != ALGORITHM:
        raise ValueError("unexpected header")
    if header.get("typ") != TOKEN_TYPE or not isinstance(header.get("kid"), str):
        raise ValueError("unexpected header")
    return str(header["kid"])


def _decode(segment: bytes) -> bytes:
    """Decode canonical base64url; anything more lenient would give one token many spellings.

    In canonical form, the last character has no bits beyond the last byte.

    Raises:
        ValueError: the segment is not in that form.
    """
    if segment[-1:] not in _LAST_CHARACTERS[len(segment) % 4]:
        raise ValueError("not canonical base64url")
    return a2b_base64(segment.translate(_TO_BASE64) + b"==")


def _json_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object without duplicate members, which parsers could read differently."""
    value = strict_json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
