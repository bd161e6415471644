"""All SQL about queued mail."""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import QueuedMail


async def add_mail(session: AsyncSession, mail: QueuedMail) -> None:
    session.add(mail)
    await session.flush()


async def find_due(session: AsyncSession, *, now: datetime) -> QueuedMail | None:
    """Return the message that has been due for longest."""
    due = select(QueuedMail).where(QueuedMail.next_attempt_at <= now)
    return await session.scalar(due.order_by(QueuedMail.next_attempt_at).limit(1))


async def claim(session: AsyncSession, mail: QueuedMail, *, until: datetime) -> bool:
    """Reserve a message for one attempt; return False if another process was faster."""
    statement = (
        update(QueuedMail)
        .where(QueuedMail.id == mail.id, QueuedMail.attempts == mail.attempts)
        .values(attempts=mail.attempts + 1, next_attempt_at=until)
        .execution_options(synchronize_session=False)
    )
    return cast(CursorResult[Any], await session.execute(statement)).rowcount == 1


async def is_queued(session: AsyncSession, *, mail_id: str) -> bool:
    return await session.scalar(select(QueuedMail.id).where(QueuedMail.id == mail_id)) is not None


async def delete_mail(session: AsyncSession, *, mail_id: str) -> None:
    await session.execute(delete(QueuedMail).where(QueuedMail.id == mail_id))


async def delete_mail_of(session: AsyncSession, *, user_id: str, kind: str) -> None:
    await session.execute(
        delete(QueuedMail).where(QueuedMail.user_id == user_id, QueuedMail.kind == kind)
    )


async def delete_mail_to(session: AsyncSession, *, email: str, kind: str) -> None:
    await session.execute(
        delete(QueuedMail).where(QueuedMail.email == email, QueuedMail.kind == kind)
    )
