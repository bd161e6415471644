"""The RS256 keys that sign tokens, in memory, and as PEM and JWK.

`signing.service` keeps them equal to the database, where all replicas find the same ones.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jose import jwk, jwt
from jose.backends.base import Key

from services.auth.signing.schedule import KeyTimes, find_signing, verifies
from services.common.errors import Unavailable
from services.common.identity.issuer_keys import ALGORITHM, MIN_RSA_BITS, public_key
from services.common.identity.tokens import TOKEN_TYPE

NEW_KEY_BITS = 3072


class LoadedKey:
    """A private key with its id and its public half, ready for use."""

    def __init__(self, private: rsa.RSAPrivateKey) -> None:
        self.private = private
        self.document = _document(private)
        """The public JWK."""
        self.id: str = self.document["kid"]
        self.signing: Key = jwk.construct(private, ALGORITHM)
        _, self.verifying = public_key(self.document)


class RingKey(NamedTuple):
    """A key of the ring, and when it is used."""

    key: LoadedKey
    times: KeyTimes

    @property
    def signs_from(self) -> datetime:
        return self.times.signs_from

    @property
    def retires_at(self) -> datetime | None:
        return self.times.retires_at


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class KeyRing:
    """The keys in use: the newest that may sign does, and all verify until they retire.

    Implements `identity.KeySource`.

    Args:
        clock: returns the time, with its zone.
    """

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock
        self._keys: dict[str, RingKey] = {}

    def replace(self, keys: Sequence[RingKey]) -> None:
        """Use these keys instead of the present ones."""
        self._keys = {each.key.id: each for each in keys}

    def get(self, kid: str) -> LoadedKey | None:
        """Return a key that the ring contains, retired or not."""
        found = self._keys.get(kid)
        return found.key if found else None

    @property
    def is_empty(self) -> bool:
        return not self._keys

    def sign(self, claims: Mapping[str, Any], *, token_type: str = TOKEN_TYPE) -> str:
        """Return a signed token with these claims, by default an access token (RFC 9068).

        Raises:
            Unavailable: the keys are not loaded yet.
        """
        found = find_signing(list(self._keys.values()), now=self._clock())
        if found is None:
            raise _not_loaded()
        headers = {"typ": token_type, "kid": found.key.id}
        return str(jwt.encode(dict(claims), found.key.signing, ALGORITHM, headers=headers))

    async def find(self, kid: str) -> Key | None:
        found = self._keys.get(kid)
        if found is None and self.is_empty:
            raise _not_loaded()
        return found.key.verifying if found and verifies(found, now=self._clock()) else None

    @property
    def document(self) -> dict[str, list[dict[str, str]]]:
        """The JWK set to publish (RFC 7517).

        Raises:
            Unavailable: the keys are not loaded yet.
        """
        if self.is_empty:
            raise _not_loaded()
        now = self._clock()
        in_use = [each.key for each in self._keys.values() if verifies(each, now=now)]
        return {"keys": [key.document for key in in_use]}


def _not_loaded() -> Unavailable:
    return Unavailable("The signing keys are not loaded; retry in 1 s.")


def new_key() -> LoadedKey:
    """Return a new key; this takes a core about 0.3 s."""
    return LoadedKey(rsa.generate_private_key(65537, NEW_KEY_BITS))


def read_folder(folder: Path, *, passphrases: Sequence[str] = ()) -> list[LoadedKey]:
    """Return the keys of every `*.pem` in a folder, in the order of their names.

    Args:
        passphrases: those that the files may be encrypted with.

    Raises:
        OSError: the folder exists but cannot be read.
        ValueError: a file is not an RSA private key of at least 2048 bits, or is encrypted with
            another passphrase.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".pem")
    except FileNotFoundError:
        return []
    return [_read(path, passphrases) for path in files]


def _read(path: Path, passphrases: Sequence[str]) -> LoadedKey:
    pem = path.read_bytes()
    for password in (None, *(each.encode() for each in passphrases if each)):
        try:
            return from_pem(pem, password=password)
        except ValueError:
            continue
    raise ValueError(
        f"{path.name} is not an RSA private key of at least {MIN_RSA_BITS} bits in PEM, or is "
        "encrypted with a passphrase other than AUTH_PASSPHRASE"
    )


def from_pem(pem: bytes, *, password: bytes | None) -> LoadedKey:
    """Return the key in a PEM file.

    Raises:
        ValueError: not an RSA private key of at least 2048 bits, or another password encrypts it.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=password)
    except TypeError as error:  # encrypted without a password given, or the reverse
        raise ValueError("encrypted, or not encrypted") from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < MIN_RSA_BITS:
        raise ValueError(f"not an RSA key of at least {MIN_RSA_BITS} bits")
    return LoadedKey(key)


def to_pem(key: LoadedKey, *, password: bytes) -> bytes:
    """Return a private key as encrypted PKCS #8."""
    return key.private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
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
