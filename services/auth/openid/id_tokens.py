"""ID tokens (OpenID Connect Core §2): issue them, and recognize them as hints."""

import base64
import hashlib
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jose import jwt

from services.auth.tokens.service import Issuer
from services.common.identity.issuer_keys import ALGORITHM

ID_TOKEN_TYPE = "JWT"  # noqa: S105
_MAX_CHARS = 8 * 1024
# A hint may have expired, and `at_hash` is about an access token that is not at hand.
_OPTIONS = {"verify_exp": False, "verify_aud": False, "verify_at_hash": False}


@dataclass(frozen=True, slots=True)
class Hint:
    """Whom an ID token was issued about, and to which client."""

    user_id: str
    client_id: str


def issue_id_token(
    issuer: Issuer,
    *,
    user_id: str,
    client_id: str,
    nonce: str | None,
    authenticated_at: datetime,
    access_token: str,
) -> str:
    """Return a signed ID token about a person, for a client.

    Args:
        authenticated_at: when the person signed in.
        access_token: the access token that is issued with it.
    """
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": issuer.settings.issuer,
        "sub": user_id,
        "aud": client_id,
        "iat": now,
        "exp": now + issuer.settings.access_token_seconds,
        "auth_time": int(authenticated_at.timestamp()),
        "at_hash": _half_hash(access_token),
    }
    if nonce is not None:
        claims["nonce"] = nonce
    return issuer.keys.sign(claims, token_type=ID_TOKEN_TYPE)


async def read_hint(issuer: Issuer, *, token: str) -> Hint | None:
    """Return what an ID token of this issuer says, even if it has expired; None for other text."""
    if len(token) > _MAX_CHARS:
        return None
    try:
        header = jwt.get_unverified_header(token)
        if header["typ"] != ID_TOKEN_TYPE or not isinstance(header["kid"], str):
            return None  # such as an access token
        key = await issuer.keys.find(header["kid"])
        if key is None:
            return None
        claims = jwt.decode(
            token, key, algorithms=[ALGORITHM], issuer=issuer.settings.issuer, options=_OPTIONS
        )
        user_id, client_id = claims["sub"], claims["aud"]
    except Exception:  # python-jose raises many kinds of errors
        return None
    if not isinstance(user_id, str) or not isinstance(client_id, str):
        return None
    return Hint(user_id, client_id)


def _half_hash(token: str) -> str:
    """Return the `at_hash` of an access token: half of its SHA-256."""
    half = hashlib.sha256(token.encode()).digest()[:16]
    return base64.urlsafe_b64encode(half).rstrip(b"=").decode()
