"""Insert a row, or change the one that is there."""

from typing import Any

from sqlalchemy import Insert
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import Base


async def upsert(
    session: AsyncSession,
    model: type[Base],
    row: dict[str, Any],
    changes: list[tuple[str, Any]],
) -> None:
    """Insert a row, or apply changes to the existing row with its key."""
    statement: Insert
    if session.get_bind().dialect.name == "sqlite":
        statement = sqlite.insert(model).values(row).on_conflict_do_update(set_=dict(changes))
    else:
        statement = mysql.insert(model).values(row).on_duplicate_key_update(changes)
    await session.execute(statement)
