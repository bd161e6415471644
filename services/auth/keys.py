"""The RS256 keys that sign tokens: a folder of PEM files, published as a JWK set."""

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jose import jwk, jwt
from jose.backends.base import Key

from services.common.identity.issuer_keys import ALGORITHM, MIN_RSA_BITS, public_key
from services.common.identity.tokens import TOKEN_TYPE

NEW_KEY_BITS = 3072
_FIRST = "0001.pem"


class KeyRing:
    """Keys in memory: the last one signs, all verify. Implements `identity.KeySource`.

    Args:
        keys: private keys, at least one, oldest first.
    """

    def __init__(self, keys: list[rsa.RSAPrivateKey]) -> None:
        documents = [_document(key) for key in keys]
        self._signing_id: str = documents[-1]["kid"]
        self._signing_key: Key = jwk.construct(keys[-1], ALGORITHM)
        self._verifying = dict(public_key(document) for document in documents)
        self.document = {"keys": documents}
        """The JWK set to publish (RFC 7517)."""

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a signed access token (RFC 9068) with these claims."""
        headers = {"typ": TOKEN_TYPE, "kid": self._signing_id}
        return str(jwt.encode(dict(claims), self._signing_key, ALGORITHM, headers=headers))

    async def find(self, kid: str) -> Key | None:
        return self._verifying.get(kid)


def open_key_ring(folder: Path) -> KeyRing:
    """Read every `*.pem` in a folder, creating the first key if the folder is empty.

    Raises:
        OSError: the folder cannot be read, or the first key cannot be written.
        ValueError: a file is not an unencrypted RSA private key of at least 2048 bits.
    """
    if not list(folder.glob("*.pem")):
        _create_first_key(folder)
    return KeyRing([_read(path) for path in sorted(folder.glob("*.pem"))])


def _create_first_key(folder: Path) -> None:
    """Write a new key; processes that start at the same time all use the same one."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / f".{uuid.uuid4().hex}.new"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(_pem(rsa.generate_private_key(65537, NEW_KEY_BITS)))
            out.flush()
            os.fsync(out.fileno())
        os.link(draft, folder / _FIRST)  # atomic, and fails if the file exists
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _read(path: Path) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path.name} is not an unencrypted PEM private key") from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < MIN_RSA_BITS:
        raise ValueError(f"{path.name} is not an RSA key of at least {MIN_RSA_BITS} bits")
    return key


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _document(key: rsa.RSAPrivateKey) -> dict[str, str]:
    """Return the public JWK; its `kid` is its RFC 7638 thumbprint."""
    numbers = key.public_key().public_numbers()
    required = {"e": _base64url(numbers.e), "kty": "RSA", "n": _base64url(numbers.n)}
    canonical = json.dumps(required, separators=(",", ":"), sort_keys=True).encode()
    kid = base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
    return {**required, "use": "sig", "alg": ALGORITHM, "kid": kid}


def _base64url(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
