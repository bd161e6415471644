"""Verify the ID tokens of other providers (OpenID Connect Core §3.1.3.7, RFC 8725). No I/O."""

import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from jose import jwk, jwt

from services.common.identity.issuer_keys import public_key

ALGORITHMS = ("RS256", "ES256")
"""Both need a public key. `none` and secrets shared with the provider are never accepted."""
LEEWAY_S = 120
"""How far the provider's clock may differ."""
_MAX_CHARS = 32 * 1024
# The times, the issuer and the audience are checked below: python-jose accepts more.
_OPTIONS = {
    f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "iss", "aud", "sub", "at_hash")
}


class IdTokenInvalid(Exception):
    """An ID token must not be trusted; the message is for the log."""


def verify_id_token(
    token: str,
    *,
    keys: Sequence[Mapping[str, Any]],
    issuer: str,
    client_id: str,
    nonce: str,
    now: float,
) -> dict[str, Any]:
    """Return the claims of an ID token that a provider has just issued to us.

    Args:
        keys: the provider's JWK set.
        nonce: that of the request.
        now: seconds since the epoch.

    Raises:
        IdTokenInvalid: the signature, a claim or the form is wrong.
    """
    if len(token) > _MAX_CHARS:
        raise IdTokenInvalid("it is too long")
    try:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS or "crit" in header:
            raise IdTokenInvalid("its algorithm is not accepted")
        if header.get("typ", "JWT").upper() != "JWT":
            raise IdTokenInvalid("it has another type")
        key = _choose_key(keys, kid=header.get("kid"), algorithm=algorithm)
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=[algorithm], options=_OPTIONS)
        _check_claims(claims, issuer=issuer, client_id=client_id, nonce=nonce, now=now)
    except IdTokenInvalid:
        raise
    except Exception as error:  # python-jose raises many kinds of errors
        raise IdTokenInvalid("it is malformed, or its signature is wrong") from error
    return claims


def has_key(keys: Sequence[Mapping[str, Any]], token: str) -> bool:
    """Return whether a JWK set has the key that a token names; True if it names none."""
    try:
        kid = jwt.get_unverified_header(token[:_MAX_CHARS]).get("kid")
    except Exception:  # `verify_id_token` reports it
        return True
    return kid is None or any(each.get("kid") == kid for each in keys)


def _choose_key(keys: Sequence[Mapping[str, Any]], *, kid: Any, algorithm: str) -> Any:
    fitting = [
        each
        for each in keys
        if each.get("kty") == {"RS256": "RSA", "ES256": "EC"}[algorithm]
        and each.get("use", "sig") == "sig"
        and each.get("alg", algorithm) == algorithm
        and kid in (None, each.get("kid"))
    ]
    if len(fitting) != 1:
        raise IdTokenInvalid("no single key of the provider fits")
    document = dict(fitting[0])
    if algorithm == "RS256":
        return public_key({"kid": "", **document})[1]
    if document.get("crv") != "P-256":
        raise IdTokenInvalid("its key is on another curve")
    return jwk.construct(document, algorithm)


def _check_claims(
    claims: Mapping[str, Any], *, issuer: str, client_id: str, nonce: str, now: float
) -> None:
    if claims["iss"] != issuer:
        raise IdTokenInvalid("another issuer made it")
    audience = claims["aud"]
    if audience != client_id:
        if not isinstance(audience, list) or client_id not in audience:
            raise IdTokenInvalid("it is for another client")
        if claims.get("azp") != client_id:
            raise IdTokenInvalid("another client asked for it")
    if claims.get("azp", client_id) != client_id:
        raise IdTokenInvalid("another client asked for it")
    expires, issued = claims["exp"], claims["iat"]
    if isinstance(expires, bool) or isinstance(issued, bool):
        raise IdTokenInvalid("its times are malformed")
    if expires + LEEWAY_S <= now or issued - LEEWAY_S > now:
        raise IdTokenInvalid("it has expired, or is from the future")
    if not hmac.compare_digest(claims["nonce"].encode(), nonce.encode()):
        raise IdTokenInvalid("it answers another request")
    if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
        raise IdTokenInvalid("its subject is malformed")
