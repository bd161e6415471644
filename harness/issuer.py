"""An issuer of access tokens with a real RSA key: valid tokens, and invalid ones of every kind."""

import base64
import hashlib
import hmac
import json
import time
import uuid
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jose.backends.base import Key

from services.common.contracts import AUDIENCE
from services.common.identity.issuer_keys import ALGORITHM, public_key
from services.common.identity.tokens import TOKEN_TYPE

ISSUER = "http://auth.test"
KEY_ID = "key-1"

Headers = dict[str, str]
Json = dict[str, Any]


def new_private_key() -> rsa.RSAPrivateKey:
    """Return a new RSA key of the smallest accepted size."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(
    key: rsa.RSAPrivateKey,
    form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
) -> str:
    """Return a private key as PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    ).decode()


def public_pem(key: rsa.RSAPrivateKey) -> str:
    """Return the public half of a private key as PEM."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


class Issuer:
    """An issuer with one key; a verifier can use it in place of the published keys.

    Args:
        url: the `iss` of its tokens.
    """

    def __init__(self, url: str = ISSUER) -> None:
        self.url = url

    @cached_property
    def private_key(self) -> rsa.RSAPrivateKey:
        """The signing key, created on first use."""
        return new_private_key()

    @cached_property
    def _keys(self) -> dict[str, Key]:
        return dict([public_key(self.jwk())])

    async def find(self, kid: str) -> Key | None:
        """Return the key to verify tokens with, as `IssuerKeys` does."""
        return self._keys.get(kid)

    def jwk(self, **members: Any) -> Json:
        """Return the published key, with changed members."""
        numbers = self.private_key.public_key().public_numbers()
        modulus = base64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big"))
        jwk = {"kty": "RSA", "use": "sig", "alg": ALGORITHM, "kid": KEY_ID, "e": "AQAB"}
        return jwk | {"n": modulus} | members

    def header(self, **members: Any) -> Json:
        """Return a token's header, with changed members."""
        return {"typ": TOKEN_TYPE, "alg": ALGORITHM, "kid": KEY_ID} | members

    def claims(self, **claims: Any) -> Json:
        """Return a token's claims, with some changed; by default the token is valid for an hour."""
        now = int(time.time())
        return {
            "iss": self.url,
            "sub": "an account",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 3600,
            "jti": uuid.uuid4().hex,
            "client_id": "tests",
            "scope": "predict usage:read",
        } | claims

    def sign(
        self, *, header: Json | bytes | None = None, claims: Json | bytes | None = None
    ) -> bytes:
        """Return a token with a valid signature over any content; by default a valid token."""
        text = _signing_input(
            self.header() if header is None else header, self.claims() if claims is None else claims
        )
        signature = self.private_key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return text + b"." + base64url(signature).encode()

    def token(self, **claims: Any) -> str:
        """Return a valid token with these claims."""
        return self.sign(claims=self.claims(**claims)).decode()

    def headers(self, *scopes: str, account: str) -> Headers:
        """Return the headers of a request whose token has these scopes."""
        return {"Authorization": f"Bearer {self.token(sub=account, scope=' '.join(scopes))}"}

    def sign_as_shared_secret(self, secret: bytes) -> bytes:
        """Return a token signed with HS256 and a secret, such as the public key."""
        text = _signing_input(self.header(alg="HS256"), self.claims())
        return text + b"." + base64url(hmac.digest(secret, text, hashlib.sha256)).encode()


def base64url(raw: bytes) -> str:
    """Return base64url without padding, as tokens use it."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _signing_input(*parts: Json | bytes) -> bytes:
    contents = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts)
    return ".".join(map(base64url, contents)).encode()
