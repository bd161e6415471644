"""Keep the signing keys of all replicas equal to the database, and rotate them.

A rotation is one transaction: it stores the new key and all times of `schedule`. Whatever fails
before it leaves nothing behind, and after it the clock does the rest.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit.service import OPERATOR, record
from services.auth.keys import KeyRing, LoadedKey, RingKey, from_pem, new_key, to_pem, utc_now
from services.auth.models import SigningKey
from services.auth.signing import repository
from services.auth.signing.schedule import (
    KEPT_AFTER,
    PUBLISHED_BEFORE,
    KeyTimes,
    find_newest,
    is_due,
    verifies,
)
from services.auth.signing.vault import Vault
from services.common.db.database import Database
from services.common.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did."""

    new: SigningKey
    """The key that signs from `new.signs_from` on."""
    began: bool
    """False if another key already waited to sign; that one is `new`."""
    retired: tuple[str, ...] = ()
    """Ids of the keys that were retired at once."""


class KeyKeeper:
    """Keeps a key ring equal to the database; `refresh` is called every few seconds.

    Args:
        given: keys of the operator, which replace the present one unless they are already known.
        max_age: age at which the signing key is replaced; None for never.
        on_withdrawal: called when a key no longer verifies tokens that it signed.
        clock: returns the time, with its zone.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        ring: KeyRing,
        *,
        given: Sequence[LoadedKey] = (),
        max_age: timedelta | None = None,
        on_withdrawal: Callable[[], None] = lambda: None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._vault = vault
        self._ring = ring
        self._given = given
        self._known = {key.id: key for key in given}
        self._max_age = max_age
        self._on_withdrawal = on_withdrawal
        self._clock = clock
        self._verifying: frozenset[str] = frozenset()
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> None:
        """Load what is new, rotate if it is time to, and erase what has retired.

        Raises:
            WrongPassphrase: the keys cannot be decrypted.
            Unavailable: the database is unavailable.
        """
        async with self._refreshing:
            await self._refresh()

    async def check(self) -> str | None:
        """Return None once keys are loaded, otherwise a sentence; this is a readiness check."""
        if not self._ring.is_empty:
            return None
        try:
            await self.refresh()
        except Unavailable as error:
            return error.detail
        except SQLAlchemyError:
            return "The signing keys cannot be read."
        return None

    async def _refresh(self) -> None:
        await self._vault.open(self._database)
        if self._given:
            await adopt(self._database, self._vault, self._given, clock=self._clock)
            self._given = ()
        stored = await read_keys(self._database)
        if is_due(stored, now=self._clock(), max_age=self._max_age):
            await rotate_if_due(
                self._database, self._vault, max_age=self._max_age, clock=self._clock
            )
            stored = await read_keys(self._database)
        now = self._clock()
        in_use = [key for key in stored if verifies(key, now=now)]
        self._ring.replace(
            [
                RingKey(await self._load(key.id), KeyTimes(key.signs_from, key.retires_at))
                for key in in_use
            ]
        )
        self._known.clear()
        verifying = frozenset(key.id for key in in_use)
        if verifying == self._verifying:
            return
        if self._verifying - verifying:
            self._on_withdrawal()
        await _erase_retired(self._database, now=now)
        self._verifying = verifying

    async def _load(self, kid: str) -> LoadedKey:
        if key := self._ring.get(kid) or self._known.get(kid):
            return key
        async with self._database.snapshot() as session:
            pem = await repository.find_private_pem(session, kid=kid)
        if pem is None:  # retired at this moment
            raise Unavailable("The signing keys are changing; retry in 1 s.")
        try:
            return await asyncio.to_thread(from_pem, pem.encode(), password=self._vault.password)
        except ValueError as error:
            raise Unavailable(f"Signing key {kid} in the database is damaged.") from error


async def read_keys(database: Database) -> Sequence[SigningKey]:
    """Return all keys without their private halves, retired ones too, oldest first."""
    async with database.snapshot() as session:
        return await repository.list_keys(session)


async def load_key_ring(database: Database, vault: Vault) -> KeyRing:
    """Return the keys of a database, for programs that only sign.

    Raises:
        WrongPassphrase: the keys cannot be decrypted.
        Unavailable: the database is unavailable.
    """
    ring = KeyRing()
    await KeyKeeper(database, vault, ring).refresh()
    return ring


async def rotate(
    database: Database,
    vault: Vault,
    *,
    at_once: bool = False,
    clock: Callable[[], datetime] = utc_now,
) -> Rotation:
    """Replace the signing key, as an operator does; safe in several processes at once.

    Args:
        at_once: sign with the new key now and retire all others, because one has leaked. Every
            token that they signed becomes invalid.

    Raises:
        WrongPassphrase: the keys cannot be decrypted.
        Unavailable: the database is unavailable.
    """
    await vault.open(database)
    key = await asyncio.to_thread(new_key)
    async with database.transaction() as session:
        await repository.lock(session)
        stored, now = await repository.list_keys(session), clock()
        newest = find_newest(stored)
        if newest is not None and newest.signs_from > now and not at_once:
            return Rotation(newest, began=False)
        retired: tuple[str, ...] = ()
        if at_once:
            retired = tuple(each.id for each in stored if verifies(each, now=now))
            await repository.retire_all(session, now=now)
        signs_from = now if at_once or newest is None else now + PUBLISHED_BEFORE
        new = await _add(session, vault, key, now=now, signs_from=signs_from, actor=OPERATOR)
    return Rotation(new, began=True, retired=retired)


async def rotate_if_due(
    database: Database, vault: Vault, *, max_age: timedelta | None, clock: Callable[[], datetime]
) -> None:
    """Create the first key, or replace one that is too old; exactly one process does."""
    key = await asyncio.to_thread(new_key)
    async with database.transaction() as session:
        await repository.lock(session)
        stored, now = await repository.list_keys(session), clock()
        if is_due(stored, now=now, max_age=max_age):
            signs_from = now + PUBLISHED_BEFORE if find_newest(stored) else now
            await _add(session, vault, key, now=now, signs_from=signs_from, actor=None)


async def adopt(
    database: Database,
    vault: Vault,
    given: Sequence[LoadedKey],
    *,
    clock: Callable[[], datetime],
) -> None:
    """Store an operator's keys, in this order, if they are new; the last one is to sign.

    In an empty database, it signs at once. Otherwise the keys replace the present one as in any
    rotation. A key that was retired does not return.
    """
    async with database.transaction() as session:
        await repository.lock(session)
        stored, now = await repository.list_keys(session), clock()
        known = {key.id for key in stored}
        for key in given:
            if key.id not in known:
                signs_from = now + PUBLISHED_BEFORE if stored else now
                await _add(session, vault, key, now=now, signs_from=signs_from, actor=OPERATOR)


async def _add(
    session: AsyncSession,
    vault: Vault,
    key: LoadedKey,
    *,
    now: datetime,
    signs_from: datetime,
    actor: str | None,
) -> SigningKey:
    """Store a key that follows the newest one, and set when that one retires."""
    await repository.retire_newest(session, retires_at=signs_from + KEPT_AFTER)
    row = SigningKey(
        id=key.id,
        private_pem=to_pem(key, password=vault.password).decode(),
        created_at=now,
        signs_from=signs_from,
    )
    await repository.add_key(session, row)
    await record(session, "signing_key_created", actor=actor, target=key.id)
    return row


async def _erase_retired(database: Database, *, now: datetime) -> None:
    async with database.transaction() as session:
        await repository.lock(session)
        for kid in await repository.erase_retired(session, now=now):
            await record(session, "signing_key_retired", actor=None, target=kid)
