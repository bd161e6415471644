"""All SQL about refresh families and failed log-ins."""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Insert, case, delete, select, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import LoginFailures, RefreshFamily

# -- failed log-ins ------------------------------------------------------------------------------


async def find_failures(
    session: AsyncSession, *, email_sha256: str, now: datetime, lock: bool = False
) -> LoginFailures | None:
    """The failures of a window that is still open; `lock` holds them until the end."""
    open_window = select(LoginFailures).where(
        LoginFailures.email_sha256 == email_sha256, LoginFailures.window_ends_at > now
    )
    return await session.scalar(open_window.with_for_update() if lock else open_window)


async def count_failure(
    session: AsyncSession, *, email_sha256: str, now: datetime, window_ends_at: datetime
) -> LoginFailures:
    """Count one failure, atomically over all replicas; a window that ended begins anew."""
    first = {"email_sha256": email_sha256, "failures": 1, "window_ends_at": window_ends_at}
    ended = LoginFailures.window_ends_at <= now
    # In this order: MySQL's later assignments see the earlier ones' new values.
    again = [
        ("failures", case((ended, 1), else_=LoginFailures.failures + 1)),
        ("window_ends_at", case((ended, window_ends_at), else_=LoginFailures.window_ends_at)),
    ]
    statement: Insert
    if session.get_bind().dialect.name == "sqlite":
        statement = (
            sqlite.insert(LoginFailures).values(first).on_conflict_do_update(set_=dict(again))
        )
    else:
        statement = mysql.insert(LoginFailures).values(first).on_duplicate_key_update(again)
    await session.execute(statement)
    return await session.get_one(LoginFailures, email_sha256, populate_existing=True)


async def delete_failures(session: AsyncSession, *, email_sha256: str) -> None:
    await session.execute(delete(LoginFailures).where(LoginFailures.email_sha256 == email_sha256))


# -- refresh families ----------------------------------------------------------------------------


async def add_family(session: AsyncSession, family: RefreshFamily) -> None:
    session.add(family)
    await session.flush()


async def find_family(session: AsyncSession, *, family_id: str) -> RefreshFamily | None:
    return await session.get(RefreshFamily, family_id)


async def rotate_family(
    session: AsyncSession, *, family_id: str, old_sha256: str, new_sha256: str, now: datetime
) -> bool:
    """Replace a family's secret; False if the old one is not its newest, or it has expired."""
    rotated = (
        update(RefreshFamily)
        .where(
            RefreshFamily.id == family_id,
            RefreshFamily.secret_sha256 == old_sha256,
            RefreshFamily.expires_at > now,
        )
        .values(secret_sha256=new_sha256)
    )
    result = cast(CursorResult[Any], await session.execute(rotated))
    return result.rowcount == 1


async def delete_family(session: AsyncSession, *, family_id: str) -> None:
    await session.execute(delete(RefreshFamily).where(RefreshFamily.id == family_id))


async def delete_expired(session: AsyncSession, *, now: datetime) -> None:
    """Drop what has expired: closed windows and old families."""
    await session.execute(delete(LoginFailures).where(LoginFailures.window_ends_at <= now))
    await session.execute(delete(RefreshFamily).where(RefreshFamily.expires_at <= now))
