"""Ed25519 keys as PEM files: one private key signs, any of several public keys is trusted."""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.common.model_records import StoreError


class TrustedKeys:
    """The public keys whose signatures count."""

    def __init__(self, keys: list[Ed25519PublicKey]) -> None:
        self._keys = keys

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a PEM file, or every `*.pem` in a folder.

        Raises:
            StoreError: nothing there, or a file that is no Ed25519 public key.
        """
        files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
        if not files:
            raise StoreError("The folder of trusted keys holds no *.pem file.")
        return cls([_load_public_key(file) for file in files])

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether one of the keys signed `data`."""
        return any(_is_signed_by(key, data, signature) for key in self._keys)


def create_signing_key(private: Path, trusted_dir: Path) -> Ed25519PrivateKey:
    """Make the key that signs versions, or take the one that is there.

    Any number of processes may call this at once: one key wins and all return it. The private
    file gets mode 0600; the public half goes to `trusted_dir`, its file named by the key's id.

    Raises:
        StoreError: a file cannot be written, or the key found is not an Ed25519 key.
    """
    fresh = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        create_file(private, fresh, mode=0o600)
        key = load_signing_key(private)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        create_file(trusted_dir / f"{key_id(key.public_key())}.pem", public)
    except OSError as error:
        raise StoreError(f"Cannot write the signing key: {error.strerror}.") from error
    return key


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key (PEM, no password).

    Raises:
        StoreError: there is no such file, or it holds something else.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StoreError(f"The signing key {path.name} cannot be read.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"The signing key {path.name} is not an Ed25519 key.")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def create_file(path: Path, content: bytes, *, mode: int = 0o644) -> bool:
    """Create `path` whole or not at all; False if it exists already. Makes its folder.

    Hard-linking a finished file is the one way to be both exclusive and never half-written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _load_public_key(file: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise StoreError(f"The trusted key {file.name} cannot be read.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise StoreError(f"The trusted key {file.name} is not an Ed25519 key.")
    return key


def _is_signed_by(key: Ed25519PublicKey, data: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True
