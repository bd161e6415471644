"""All SQL about the audit log."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, Row, Table, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import AuditEntry, PendingAuditEntry

# Entries are read and written as rows, without objects of the session: all are sealed each second.
_PENDING = cast(Table, PendingAuditEntry.__table__)
_SEALED = cast(Table, AuditEntry.__table__)
_ADD_PENDING = insert(_PENDING)
_ADD_SEALED = insert(_SEALED)


async def add_pending(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Insert entries that are not part of the chain yet."""
    await session.execute(_ADD_PENDING, rows)


async def has_pending(session: AsyncSession) -> bool:
    return await session.scalar(select(PendingAuditEntry.id).limit(1)) is not None


async def list_pending(session: AsyncSession, *, limit: int) -> Sequence[Row[Any]]:
    """Return the oldest entries that are not part of the chain yet, with their columns."""
    oldest = select(_PENDING).order_by(_PENDING.c.id).limit(limit)
    return (await session.execute(oldest)).all()


async def delete_pending(session: AsyncSession, *, ids: Sequence[int]) -> int:
    """Delete entries, waiting for others who are deleting them; return how many were left."""
    statement = delete(PendingAuditEntry).where(PendingAuditEntry.id.in_(ids))
    options = {"synchronize_session": False}
    result = cast(CursorResult[Any], await session.execute(statement, execution_options=options))
    return result.rowcount


async def add_sealed(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Append entries to the chain."""
    await session.execute(_ADD_SEALED, rows)


async def find_last(session: AsyncSession) -> AuditEntry | None:
    """Return the newest entry of the chain."""
    return await session.scalar(select(AuditEntry).order_by(AuditEntry.id.desc()).limit(1))


async def list_before(
    session: AsyncSession, *, before: int | None, limit: int
) -> Sequence[AuditEntry]:
    """Return entries with smaller ids than `before`, newest first."""
    newest = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if before is not None:
        newest = newest.where(AuditEntry.id < before)
    return (await session.scalars(newest)).all()


async def list_about(session: AsyncSession, *, user_id: str, limit: int) -> Sequence[AuditEntry]:
    """Return the newest entries in which a user acts or is acted on, newest first."""
    as_member = AuditEntry.target.startswith(f"{user_id}@")
    about = or_(AuditEntry.actor == user_id, AuditEntry.target == user_id, as_member)
    newest = select(AuditEntry).where(about).order_by(AuditEntry.id.desc()).limit(limit)
    return (await session.scalars(newest)).all()


async def list_after(session: AsyncSession, *, after: int, limit: int) -> Sequence[AuditEntry]:
    """Return entries with larger ids than `after`, oldest first."""
    oldest = select(AuditEntry).where(AuditEntry.id > after).order_by(AuditEntry.id).limit(limit)
    return (await session.scalars(oldest)).all()
