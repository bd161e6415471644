"""All SQL about notes on accounts."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import AccountNote, User


async def add_note(session: AsyncSession, note: AccountNote) -> None:
    session.add(note)
    await session.flush()


async def count_notes(session: AsyncSession, *, account_id: str) -> int:
    count = select(func.count()).where(AccountNote.account_id == account_id)
    return await session.scalar(count) or 0


async def list_notes(
    session: AsyncSession, *, account_id: str, limit: int
) -> Sequence[tuple[AccountNote, str | None]]:
    """Return the notes on an account, newest first, each with the e-mail address of its author."""
    newest = (
        select(AccountNote, User.email)
        .outerjoin(User, User.id == AccountNote.author_id)
        .where(AccountNote.account_id == account_id)
        .order_by(AccountNote.created_at.desc(), AccountNote.id.desc())
        .limit(limit)
    )
    return [(note, email) for note, email in await session.execute(newest)]


async def lock_note(session: AsyncSession, *, note_id: str) -> AccountNote | None:
    """Return a note, locked until the transaction ends."""
    return await session.get(AccountNote, note_id, with_for_update=True)


async def delete_note(session: AsyncSession, note: AccountNote) -> None:
    await session.delete(note)
    await session.flush()


async def delete_notes(session: AsyncSession, *, account_id: str) -> None:
    await session.execute(delete(AccountNote).where(AccountNote.account_id == account_id))
