"""All SQL about API keys."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import ApiKey


async def add_key(session: AsyncSession, key: ApiKey) -> bool:
    """Insert a key; return False, writing nothing, if its creator was deleted meanwhile."""
    try:
        async with session.begin_nested():
            session.add(key)
    except IntegrityError:
        return False
    return True


async def find_key_by_digest(session: AsyncSession, *, key_sha256: str) -> ApiKey | None:
    return await session.scalar(select(ApiKey).where(ApiKey.key_sha256 == key_sha256))


async def list_keys(session: AsyncSession, *, account_id: str) -> Sequence[ApiKey]:
    """Return an account's keys, oldest first."""
    owned = select(ApiKey).where(ApiKey.account_id == account_id)
    return (await session.scalars(owned.order_by(ApiKey.created_at, ApiKey.id))).all()


async def lock_key(session: AsyncSession, *, account_id: str, key_id: str) -> ApiKey | None:
    """Return an account's key, locked until the transaction ends."""
    if not key_id.isascii():  # MySQL cannot compare it with an ASCII column
        return None
    owned = select(ApiKey).where(ApiKey.id == key_id, ApiKey.account_id == account_id)
    return await session.scalar(owned.with_for_update())


async def delete_key(session: AsyncSession, key: ApiKey) -> None:
    await session.delete(key)
    await session.flush()


async def delete_keys(session: AsyncSession, *, account_id: str) -> None:
    """Delete all keys of an account."""
    await session.execute(delete(ApiKey).where(ApiKey.account_id == account_id))


async def record_use(
    session: AsyncSession, *, key_id: str, now: datetime, unless_since: datetime
) -> bool:
    """Store that a key was used, unless it was `unless_since`; return whether it was stored."""
    statement = (
        update(ApiKey)
        .where(
            ApiKey.id == key_id,
            (ApiKey.last_used_at.is_(None)) | (ApiKey.last_used_at < unless_since),
        )
        .values(last_used_at=now)
    )
    result = cast(CursorResult[Any], await session.execute(statement))
    return result.rowcount == 1


async def delete_expired(session: AsyncSession, *, before: datetime) -> None:
    """Delete the keys that expired before a point in time."""
    await session.execute(delete(ApiKey).where(ApiKey.expires_at < before))
