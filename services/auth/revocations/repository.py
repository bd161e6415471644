"""All SQL about revocations."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import Revocation, RevocationCounter
from services.auth.upserts import upsert

_ONLY = 1


async def take_numbers(session: AsyncSession, *, count: int) -> int:
    """Return the first of so many new numbers.

    The counter stays locked until the transaction ends. So revocations are committed in the order
    of their numbers, and a reader never passes one that is not visible yet.
    """
    first = {"id": _ONLY, "last": count}
    await upsert(session, RevocationCounter, first, [("last", RevocationCounter.last + count)])
    return await find_last(session) - count + 1


async def find_last(session: AsyncSession) -> int:
    """Return the number of the newest revocation; 0 if there never was one."""
    last = select(RevocationCounter.last).where(RevocationCounter.id == _ONLY)
    return await session.scalar(last) or 0


async def add_revocations(session: AsyncSession, revocations: Sequence[Revocation]) -> None:
    session.add_all(revocations)
    await session.flush()


async def list_revocations(
    session: AsyncSession, *, after: int, last: int, now: datetime, limit: int
) -> Sequence[Revocation]:
    """Return those in force with a number above `after` and up to `last`, in order."""
    following = (
        select(Revocation)
        .where(Revocation.sequence > after, Revocation.sequence <= last, Revocation.until > now)
        .order_by(Revocation.sequence)
        .limit(limit)
    )
    return (await session.scalars(following)).all()


async def is_token_revoked(session: AsyncSession, *, token_id: str) -> bool:
    """Return whether a single access token was revoked."""
    if not token_id.isascii():  # MySQL cannot compare it with an ASCII column
        return False
    found = select(Revocation.sequence).where(
        Revocation.target_id == token_id, Revocation.kind == "jti"
    )
    return await session.scalar(found.limit(1)) is not None


async def find_last_revocation(
    session: AsyncSession, *, kind: str, target_id: str, account: str
) -> datetime | None:
    """Return the latest `issued_before` among an account's revocations of this kind and id."""
    latest = (
        select(Revocation.issued_before)
        .where(
            Revocation.target_id == target_id,
            Revocation.kind == kind,
            Revocation.account_id == account,
        )
        .order_by(Revocation.issued_before.desc())
    )
    return await session.scalar(latest.limit(1))


async def delete_expired(session: AsyncSession, *, now: datetime) -> None:
    await session.execute(delete(Revocation).where(Revocation.until <= now))
