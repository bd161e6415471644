"""Encrypt secrets at rest, with one random key that a passphrase protects.

The key is a row of the database. Without a passphrase it is stored as it is, so that a passphrase
can be added, changed or removed later by writing this one row again: no other secret changes, and
replicas that already have the key keep working.
"""

import asyncio
import base64
import binascii
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from services.auth.audit.service import OPERATOR, record
from services.auth.signing import repository
from services.common.db.database import Database
from services.common.errors import Unavailable
from services.common.settings import exit_with_error

_KEY_BYTES = 32
_NONCE_BYTES = 12
_SALT_BYTES = 16
_PLAIN, _WRAPPED = "plain", "scrypt"
_KEY_OWNER = "encryption key"


class WrongPassphrase(Unavailable):
    """None of the passphrases decrypts the stored key."""

    def __init__(self) -> None:
        super().__init__("The passphrase does not decrypt the keys in the database.")


class Vault:
    """Encrypts and decrypts secrets, once it is open.

    Args:
        passphrases: the one that protects the key, then others that may have protected it before;
            an empty one means that the key is not protected.
    """

    def __init__(self, passphrases: Sequence[str] = ("",)) -> None:
        self._passphrases = passphrases
        self._key: bytes | None = None

    async def open(self, database: Database) -> None:
        """Read the key, or create it; protect it with the passphrase if it is not protected so.

        Raises:
            WrongPassphrase: neither passphrase is right.
            Unavailable: the database is unavailable.
        """
        if self._key is not None:
            return
        try:
            self._key = await self._load(database)
        except IntegrityError:  # another process was faster to create it
            self._key = await self._load(database)

    async def _load(self, database: Database) -> bytes:
        passphrase = self._passphrases[0]
        async with database.transaction() as session:
            row = await repository.lock(session)
            if row is None:
                key = os.urandom(_KEY_BYTES)
                await repository.add_encryption_key(session, wrap(key, passphrase))
                return key
            key, opened_by = unwrap(row.wrapped, self._passphrases)
            if opened_by != passphrase:
                row.wrapped = wrap(key, passphrase)
                await record(session, "passphrase_changed", actor=OPERATOR)
            return key

    @property
    def password(self) -> bytes:
        """The password of PEM files in the database."""
        return base64.b64encode(self._opened_key())

    def encrypt(self, secret: bytes, *, owner: str) -> str:
        """Return a secret encrypted, in base64; it takes 28 bytes more.

        Args:
            owner: id of what the secret belongs to; it cannot be decrypted as another's.
        """
        return base64.b64encode(_encrypt(self._opened_key(), secret, owner)).decode()

    def decrypt(self, encrypted: str, *, owner: str) -> bytes:
        """Return a secret.

        Raises:
            ValueError: it was changed, belongs to another owner, or was not encrypted here.
        """
        return _decrypt(self._opened_key(), base64.b64decode(encrypted, validate=True), owner)

    def _opened_key(self) -> bytes:
        if self._key is None:
            raise Unavailable("The encryption key is not loaded; retry in 1 s.")
        return self._key


def check_passphrase(url: str, passphrases: Sequence[str]) -> None:
    """Check that a database's keys can be decrypted, unless the database is unavailable.

    Raises:
        SystemExit: they cannot be decrypted; one line on stderr says so.
    """

    async def check() -> None:
        database = Database(url)
        try:
            async with database.snapshot() as session:
                row = await repository.find_encryption_key(session)
            if row is not None:
                unwrap(row.wrapped, passphrases)
        finally:
            await database.close()

    try:
        asyncio.run(check())
    except WrongPassphrase as error:
        exit_with_error(f"AUTH_PASSPHRASE: {error.detail}")
    except (Unavailable, SQLAlchemyError):
        pass  # the service starts, and is ready once its database is


def wrap(key: bytes, passphrase: str) -> str:
    """Return a key as it is stored: encrypted with a passphrase, or plain without one."""
    if not passphrase:
        return f"{_PLAIN}:{base64.b64encode(key).decode()}"
    salt = os.urandom(_SALT_BYTES)
    content = salt + _encrypt(_derive(passphrase, salt), key, _KEY_OWNER)
    return f"{_WRAPPED}:{base64.b64encode(content).decode()}"


def unwrap(stored: str, passphrases: Sequence[str]) -> tuple[bytes, str]:
    """Return a stored key, and the passphrase that decrypted it; empty if it is stored plain.

    Raises:
        WrongPassphrase: no passphrase is right.
    """
    kind, _, encoded = stored.partition(":")
    content = base64.b64decode(encoded)
    if kind == _PLAIN:
        return content, ""
    salt, encrypted = content[:_SALT_BYTES], content[_SALT_BYTES:]
    for passphrase in filter(None, passphrases):
        try:
            return _decrypt(_derive(passphrase, salt), encrypted, _KEY_OWNER), passphrase
        except ValueError:
            continue
    raise WrongPassphrase()


def _derive(passphrase: str, salt: bytes) -> bytes:
    """Return a key from a passphrase; this takes 0.15 s and 32 MiB."""
    return Scrypt(salt=salt, length=_KEY_BYTES, n=2**15, r=8, p=1).derive(passphrase.encode())


def _encrypt(key: bytes, secret: bytes, owner: str) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, owner.encode())


def _decrypt(key: bytes, encrypted: bytes, owner: str) -> bytes:
    nonce, content = encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, content, owner.encode())
    except (InvalidTag, binascii.Error) as error:
        raise ValueError("wrong key, or changed") from error
