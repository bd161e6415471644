"""Databases of the services under test."""

from collections.abc import Collection
from functools import cache

from sqlalchemy import CompoundSelect, MetaData, Table, exists, literal, select, union_all

from services.common.db.database import Database


async def empty_tables(database: Database, tables: MetaData, *, keep: Collection[str] = ()) -> None:
    """Delete all rows of these tables except `keep`, in the order that foreign keys need.

    A test fills a few of the tables. Asking which they are takes less time than emptying all.
    A background task of the app may commit just then, such as entries of the audit log: a delete
    waits for it, and the next look finds what it wrote.
    """
    async with database.transaction() as session:
        while filled := set(await session.scalars(_names_of_filled(tables))) - set(keep):
            for table in _children_first(tables):
                if table.name in filled:
                    await session.execute(table.delete())


@cache
def _names_of_filled(tables: MetaData) -> CompoundSelect[str]:
    """Return a query for the names of the tables that have rows."""
    return union_all(
        *(
            select(literal(table.name)).where(exists(select(1).select_from(table)))
            for table in _children_first(tables)
        )
    )


@cache
def _children_first(tables: MetaData) -> list[Table]:
    return list(reversed(tables.sorted_tables))
