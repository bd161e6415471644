"""Databases of the services under test."""

from collections.abc import Collection

from sqlalchemy import MetaData

from services.common.db.database import Database


async def empty_tables(database: Database, tables: MetaData, *, keep: Collection[str] = ()) -> None:
    """Delete all rows of these tables except `keep`, in the order that foreign keys need."""
    async with database.transaction() as session:
        for table in reversed(tables.sorted_tables):
            if table.name not in keep:
                await session.execute(table.delete())
