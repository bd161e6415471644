"""Ed25519 keys as PEM files: one private key signs, any of several public keys is trusted."""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.common.model_records import StoreError


class TrustedKeys:
    """The public keys whose signatures count. Those of a folder follow what becomes of it."""

    def __init__(self, keys: list[Ed25519PublicKey]) -> None:
        self._keys = keys
        self._path: Path | None = None
        self._seen: Listing | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a PEM file, or every `*.pem` in a folder.

        Raises:
            StoreError: nothing there, or a file that is no Ed25519 public key.
        """
        trusted = cls([])
        trusted._path, trusted._seen = path, _listing(path)
        files = _key_files(path)
        if not files:
            raise StoreError("The folder of trusted keys holds no *.pem file.")
        trusted._keys = [_load_public_key(file) for file in files]
        return trusted

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether one of the keys signed `data`.

        A key that was added to the folder counts from now on, one that was removed no longer.
        """
        self._follow()
        return any(_is_signed_by(key, data, signature) for key in self._keys)

    def fingerprint(self) -> frozenset[bytes]:
        """The keys themselves, to tell whether others count now than before."""
        self._follow()
        return frozenset(key.public_bytes_raw() for key in self._keys)

    def _follow(self) -> None:
        """Read the keys again if a file came, went or was changed.

        A file that is no key does not count, and does not keep the others from counting. A folder
        that cannot be looked at changes nothing: it may be about to be mounted.
        """
        if self._path is None:
            return
        now = _listing(self._path)
        if now is None or now == self._seen:
            return
        keys = []
        for file in _key_files(self._path):
            try:
                keys.append(_load_public_key(file))
            except StoreError:
                continue
        # The listing is the older of the two: what changed in between is seen the next time.
        self._keys, self._seen = keys, now


@dataclass(frozen=True)
class KeyFile:
    """A trusted public key; `signs` if its private half is the one that signs new versions."""

    id: str
    file: Path
    created: datetime
    signs: bool


def list_keys(private: Path, trusted_dir: Path) -> list[KeyFile]:
    """The keys of a folder, oldest first.

    Raises:
        StoreError: a key cannot be read. That there is no private one is no error.
    """
    signing = key_id(load_signing_key(private).public_key()) if private.exists() else None
    found = []
    for file in sorted(trusted_dir.glob("*.pem")):
        name = key_id(_load_public_key(file))
        created = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        found.append(KeyFile(name, file, created, name == signing))
    return sorted(found, key=lambda key: (key.created, key.id))


def create_signing_key(private: Path, trusted_dir: Path) -> Ed25519PrivateKey:
    """Make the key that signs versions, or take the one that is there.

    Any number of processes may call this at once: one key wins and all return it. The private
    file gets mode 0600; the public half goes to `trusted_dir`, its file named by the key's id.

    Raises:
        StoreError: a file cannot be written, or the key found is not an Ed25519 key.
    """
    try:
        create_file(private, _private_pem(Ed25519PrivateKey.generate()), mode=0o600)
        key = load_signing_key(private)
        _trust(key, trusted_dir)
    except OSError as error:
        raise StoreError(f"Cannot write the signing key: {error.strerror}.") from error
    return key


def rotate_signing_key(private: Path, trusted_dir: Path) -> tuple[str, str]:
    """Sign with a new key from now on; the old one stays trusted, but nobody can sign with it.

    Returns:
        The ids of the old key and of the new one.

    Raises:
        StoreError: there is no key to rotate, or a file cannot be written.
    """
    try:
        with _alone_in(private.parent):
            old, new = load_signing_key(private), Ed25519PrivateKey.generate()
            # Trusted first, so that whatever is signed with it is trusted from the first moment.
            for key in (old, new):
                _trust(key, trusted_dir)
            draft = _write_draft(private, _private_pem(new), mode=0o600)
            draft.replace(private)
    except OSError as error:
        raise StoreError(f"Cannot rotate the signing key: {error.strerror}.") from error
    return key_id(old.public_key()), key_id(new.public_key())


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
    draft = _write_draft(path, content, mode=mode)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _write_draft(path: Path, content: bytes, *, mode: int) -> Path:
    """A finished file beside `path`, under a name of its own."""
    draft = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the kernel's lock of a folder, so that of two processes one waits for the other."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
    """What tells one state of the key files from another; None if they cannot be looked at."""
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
