"""Access tokens of a test issuer with a real RSA key, signed and verified as in production."""

import time
import uuid
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jose import jwt
from jose.backends.base import Key
from jose.jwk import construct

from services.common.contracts import AUDIENCE
from services.common.identity.tokens import ALGORITHM, TOKEN_TYPE, public_key

ISSUER = "http://auth.test"
KEY_ID = "test"

Headers = dict[str, str]


class Issuer:
    """Signs tokens, and provides the keys to verify them."""

    def __init__(self) -> None:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._private = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        document: dict[str, Any] = construct(self._private, ALGORITHM).public_key().to_dict()
        self._keys = dict([public_key(document | {"kid": KEY_ID, "use": "sig"})])

    async def find(self, kid: str) -> Key | None:
        return self._keys.get(kid)

    def headers(self, *scopes: str, account: str) -> Headers:
        """Return the headers of a request whose token has these scopes."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": account,
            "aud": AUDIENCE,
            "exp": now + 3600,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "client_id": "tests",
            "scope": " ".join(scopes),
        }
        header = {"typ": TOKEN_TYPE, "kid": KEY_ID}
        token = jwt.encode(claims, self._private, ALGORITHM, headers=header)
        return {"Authorization": f"Bearer {token}"}
