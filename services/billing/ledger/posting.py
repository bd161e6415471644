"""Posting: the one way in which money moves."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.ledger import opening, repository
from services.billing.ledger.entries import Entry


async def post(session: AsyncSession, entry: Entry | None) -> int | None:
    """Store an entry in the transaction of what causes it; return its id, or None without one.

    The sums that are kept of it, such as what an account has available, are changed by the caller
    in the same transaction.
    """
    return None if entry is None else await repository.add_entry(session, entry)


async def post_missing(session: AsyncSession, *, now: datetime) -> int:
    """Post what the version before has stored without an entry; return how many entries that took.

    The caller makes sure that no other call runs at the same time.
    """
    connection = await session.connection()
    return await connection.run_sync(lambda sync: opening.post_missing(sync, now=now))


async def post_missing_credits(session: AsyncSession, *, now: datetime) -> int:
    """Post only credits like `post_missing`, which is much quicker than usage."""
    connection = await session.connection()
    return await connection.run_sync(lambda sync: opening.post_missing_credits(sync, now=now))
