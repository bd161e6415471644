"""Databases of the services under test."""

from sqlalchemy import MetaData

from services.common.db.database import Database


async def empty_tables(database: Database, tables: MetaData) -> None:
    """Delete all rows of these tables, in the order that foreign keys need."""
    async with database.transaction() as session:
        for table in reversed(tables.sorted_tables):
            await session.execute(table.delete())
