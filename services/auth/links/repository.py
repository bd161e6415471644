"""All SQL about one-time links."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import OneTimeLink


async def add_link(session: AsyncSession, link: OneTimeLink) -> None:
    session.add(link)
    await session.flush()


async def find_link(
    session: AsyncSession, *, token_sha256: str, purposes: Sequence[str], now: datetime
) -> OneTimeLink | None:
    valid = select(OneTimeLink).where(
        OneTimeLink.token_sha256 == token_sha256,
        OneTimeLink.purpose.in_(purposes),
        OneTimeLink.expires_at > now,
    )
    return await session.scalar(valid)


async def delete_link(session: AsyncSession, *, token_sha256: str) -> bool:
    """Delete a link; return False if another transaction already did."""
    statement = delete(OneTimeLink).where(OneTimeLink.token_sha256 == token_sha256)
    return cast(CursorResult[Any], await session.execute(statement)).rowcount == 1


async def delete_links_of(session: AsyncSession, *, user_id: str, purposes: Sequence[str]) -> None:
    await session.execute(
        delete(OneTimeLink).where(OneTimeLink.user_id == user_id, OneTimeLink.purpose.in_(purposes))
    )


async def delete_links_to(session: AsyncSession, *, email: str, organisation_id: str) -> None:
    await session.execute(
        delete(OneTimeLink).where(
            OneTimeLink.organisation_id == organisation_id, OneTimeLink.email == email
        )
    )


async def delete_expired(session: AsyncSession, *, now: datetime) -> None:
    await session.execute(delete(OneTimeLink).where(OneTimeLink.expires_at <= now))
