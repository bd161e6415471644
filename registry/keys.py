"""Ed25519 keys in PEM files: one private key signs, several public keys can be trusted."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from registry.records import StoreError
from registry.storage.local import create_file, locked, replace_file


class TrustedKeys:
    """The public keys whose signatures are accepted.

    Keys loaded from a folder are reloaded when its files change.
    """

    def __init__(self, keys: list[Ed25519PublicKey]) -> None:
        self._keys = keys
        self._path: Path | None = None
        self._listing: Listing | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a PEM file, or every `*.pem` in a folder.

        Raises:
            StoreError: there is no file, or a file is not an Ed25519 public key.
        """
        trusted = cls([])
        trusted._path, trusted._listing = path, _listing(path)
        files = _key_files(path)
        if not files:
            raise StoreError("The folder of trusted keys contains no *.pem file.")
        trusted._keys = [_load_public_key(file) for file in files]
        return trusted

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Return whether a currently trusted key signed `data`."""
        self._reload_if_changed()
        return any(_is_signed_by(key, data, signature) for key in self._keys)

    def fingerprint(self) -> frozenset[bytes]:
        """Return the raw keys, so that callers can detect a change."""
        self._reload_if_changed()
        return frozenset(key.public_bytes_raw() for key in self._keys)

    def _reload_if_changed(self) -> None:
        """Reload the keys if a file was added, removed or changed.

        A file that is not a key is skipped. If the folder cannot be read, the current keys stay:
        the folder may be about to be mounted.
        """
        if self._path is None:
            return
        listing = _listing(self._path)
        if listing is None or listing == self._listing:
            return
        keys = []
        for file in _key_files(self._path):
            try:
                keys.append(_load_public_key(file))
            except StoreError:
                continue
        # The listing predates the files just read, so a change in between is seen next time.
        self._keys, self._listing = keys, listing


@dataclass(frozen=True)
class KeyFile:
    """A trusted public key; `signs` is True if its private key signs new versions."""

    id: str
    file: Path
    created: datetime
    signs: bool


def list_keys(private: Path, trusted_dir: Path) -> list[KeyFile]:
    """Return the keys of a folder, oldest first.

    Raises:
        StoreError: a key cannot be read. A missing private key is not an error.
    """
    signing = key_id(load_signing_key(private).public_key()) if private.exists() else None
    files = []
    for file in sorted(trusted_dir.glob("*.pem")):
        name = key_id(_load_public_key(file))
        created = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        files.append(KeyFile(name, file, created, name == signing))
    return sorted(files, key=lambda key: (key.created, key.id))


def create_signing_key(private: Path, trusted_dir: Path) -> Ed25519PrivateKey:
    """Create the key that signs versions, or return the existing one.

    Concurrent calls all return the same key. The private file has mode 0600; the public key goes
    to `trusted_dir`, in a file named after the key's id.

    Raises:
        StoreError: a file cannot be written, or the existing key is not an Ed25519 key.
    """
    try:
        create_file(private, _private_pem(Ed25519PrivateKey.generate()), mode=0o600)
        key = load_signing_key(private)
        _trust(key, trusted_dir)
    except OSError as error:
        raise StoreError(f"Cannot write the signing key: {error.strerror}.") from error
    return key


def rotate_signing_key(private: Path, trusted_dir: Path) -> tuple[str, str]:
    """Replace the signing key; the old key stays trusted but can no longer sign.

    Returns:
        The ids of the old and the new key.

    Raises:
        StoreError: there is no key to rotate, or a file cannot be written.
    """
    try:
        with locked(private.parent):
            old, new = load_signing_key(private), Ed25519PrivateKey.generate()
            # Trust the new key first, so that everything signed with it is trusted immediately.
            for key in (old, new):
                _trust(key, trusted_dir)
            replace_file(private, _private_pem(new), mode=0o600)
    except OSError as error:
        raise StoreError(f"Cannot rotate the signing key: {error.strerror}.") from error
    return key_id(old.public_key()), key_id(new.public_key())


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key (PEM, no password).

    Raises:
        StoreError: the file does not exist or is not such a key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StoreError(f"The signing key {path.name} cannot be read.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"The signing key {path.name} is not an Ed25519 key.")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """Return the first 16 hex digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _trust(key: Ed25519PrivateKey, trusted_dir: Path) -> None:
    public = key.public_key()
    content = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    create_file(trusted_dir / f"{key_id(public)}.pem", content)


Listing = list[tuple[str, int, int, int]]


def _listing(path: Path) -> Listing | None:
    """Return a listing that changes with the key files; None if they cannot be read."""
    try:
        return [
            (file.name, status.st_ino, status.st_mtime_ns, status.st_size)
            for file in _key_files(path)
            for status in [file.stat()]
        ]
    except OSError:
        return None


def _key_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.pem")) if path.is_dir() else [path]


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
