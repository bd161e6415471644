"""All SQL about signing keys and the key that encrypts them."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from services.auth.models import EncryptionKey, SigningKey

_ONLY = 1


async def lock(session: AsyncSession) -> EncryptionKey | None:
    """Return the encryption key, locked, so that processes change keys one at a time."""
    return await session.get(EncryptionKey, _ONLY, with_for_update=True)


async def find_encryption_key(session: AsyncSession) -> EncryptionKey | None:
    return await session.get(EncryptionKey, _ONLY)


async def add_encryption_key(session: AsyncSession, wrapped: str) -> None:
    """Insert the encryption key; IntegrityError if another process was faster."""
    session.add(EncryptionKey(id=_ONLY, wrapped=wrapped))
    await session.flush()


async def list_keys(session: AsyncSession) -> Sequence[SigningKey]:
    """Return all keys, retired ones too, oldest first; without their private halves."""
    in_order = select(SigningKey).order_by(SigningKey.created_at, SigningKey.signs_from)
    return (await session.scalars(in_order.options(defer(SigningKey.private_pem)))).all()


async def find_private_pem(session: AsyncSession, *, kid: str) -> str | None:
    return await session.scalar(select(SigningKey.private_pem).where(SigningKey.id == kid))


async def add_key(session: AsyncSession, key: SigningKey) -> None:
    session.add(key)
    await session.flush()


async def retire_newest(session: AsyncSession, *, retires_at: datetime) -> None:
    """Set when the newest key retires, because another follows it."""
    await _set_retirement(session, SigningKey.retires_at.is_(None), retires_at)


async def retire_all(session: AsyncSession, *, now: datetime) -> None:
    """Retire all keys at once."""
    valid = or_(SigningKey.retires_at.is_(None), SigningKey.retires_at > now)
    await _set_retirement(session, valid, now)


async def _set_retirement(
    session: AsyncSession, which: ColumnElement[bool], retires_at: datetime
) -> None:
    statement = update(SigningKey).where(which).values(retires_at=retires_at)
    await session.execute(statement.execution_options(synchronize_session=False))


async def erase_retired(session: AsyncSession, *, now: datetime) -> Sequence[str]:
    """Delete the private halves of retired keys; return the ids of those that had one."""
    retired = (SigningKey.retires_at <= now) & SigningKey.private_pem.is_not(None)
    ids = (await session.scalars(select(SigningKey.id).where(retired))).all()
    erased = update(SigningKey).where(SigningKey.id.in_(ids)).values(private_pem=None)
    if ids:
        await session.execute(erased.execution_options(synchronize_session=False))
    return ids
