"""Hand-made tokens and keys, which can be wrong in every way."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "https://auth.test"
KID = "key-1"
PRIVATE = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def document(key: rsa.RSAPrivateKey = PRIVATE, kid: str = KID, **more: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    n = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")
    jwk = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "e": "AQAB", "n": b64(n)}
    return jwk | more


def header(**more: Any) -> dict[str, Any]:
    return {"typ": "at+jwt", "alg": "RS256", "kid": KID} | more


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": ISSUER,
        "sub": "an account",
        "aud": "tollgate",
        "iat": now,
        "exp": now + 3600,
        "jti": "1",
        "client_id": "web",
        "scope": "predict usage:read",
    } | more


def signed(
    head: dict[str, Any] | bytes, body: dict[str, Any] | bytes, key: rsa.RSAPrivateKey = PRIVATE
) -> bytes:
    """Return a JWS with a valid signature over any content."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, body)
    ]
    text = ".".join(b64(part) for part in parts).encode()
    return text + b"." + b64(key.sign(text, padding.PKCS1v15(), hashes.SHA256())).encode()


def hs256(secret: bytes, **more: Any) -> bytes:
    """Return a token that is signed with the public key as a shared secret."""
    head, body = header(alg="HS256", **more), claims()
    text = ".".join(b64(json.dumps(part).encode()) for part in (head, body)).encode()
    return text + b"." + b64(hmac.digest(secret, text, hashlib.sha256)).encode()
