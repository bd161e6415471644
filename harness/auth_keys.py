"""Sign tokens as the auth service of a running platform does, to forge what it would not issue."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from services.auth.keys import KeyRing, LoadedKey, RingKey
from services.auth.signing.schedule import KeyTimes
from services.auth.signing.service import load_key_ring
from services.auth.signing.vault import Vault
from services.common.db.database import Database


def local_key_ring(home: Path) -> KeyRing:
    """Return the signing keys of a platform whose databases are files in its state folder."""
    return asyncio.run(_load(f"sqlite+aiosqlite:///{home.absolute()}/auth.db"))


def key_ring_of(keys: Sequence[LoadedKey]) -> KeyRing:
    """Return a ring of which the last key signs."""
    ring, long_ago = KeyRing(), datetime.fromtimestamp(0, UTC)
    never = datetime.max.replace(tzinfo=UTC)
    ends = [*(never for _ in keys[1:]), None]
    ring.replace(
        [RingKey(key, KeyTimes(long_ago, end)) for key, end in zip(keys, ends, strict=True)]
    )
    return ring


async def _load(database_url: str) -> KeyRing:
    database = Database(database_url)
    try:
        return await load_key_ring(database, Vault())
    finally:
        await database.close()
