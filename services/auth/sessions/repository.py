"""All SQL about browser sessions."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.sessions.models import BrowserSession


async def add_session(session: AsyncSession, row: BrowserSession) -> None:
    session.add(row)
    await session.flush()


async def find_session(
    session: AsyncSession, *, id_sha256: str, now: datetime
) -> BrowserSession | None:
    live = select(BrowserSession).where(
        BrowserSession.id_sha256 == id_sha256, BrowserSession.expires_at > now
    )
    return await session.scalar(live)


async def list_sessions(session: AsyncSession, *, user_id: str) -> Sequence[BrowserSession]:
    """Return the sessions of a user, oldest first."""
    own = select(BrowserSession).where(BrowserSession.user_id == user_id)
    in_order = own.order_by(BrowserSession.created_at, BrowserSession.id_sha256)
    return (await session.scalars(in_order)).all()


async def delete_session(session: AsyncSession, *, id_sha256: str) -> None:
    await session.execute(delete(BrowserSession).where(BrowserSession.id_sha256 == id_sha256))


async def delete_expired(session: AsyncSession, *, now: datetime) -> None:
    await session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= now))
