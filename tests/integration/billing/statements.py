"""What the database does for a call: the statements, and on MySQL how it reads their tables."""

from contextlib import AbstractContextManager
from typing import NamedTuple

from sqlalchemy import text

from harness.statements import Statement, noted_statements
from services.common.db.database import Database


class Access(NamedTuple):
    """How a statement reads one table: by which key, and what it does besides."""

    table: str
    kind: str
    key: str | None
    extra: str


def recorded(database: Database) -> AbstractContextManager[list[Statement]]:
    """Record the statements that name a usage event's table."""
    return noted_statements(database, lambda statement: "usage_events" in statement.sql)


async def accesses(database: Database, statements: list[Statement]) -> list[Access]:
    """Return how MySQL reads each table of some SELECTs; nothing on SQLite."""
    if database.engine.dialect.name != "mysql":
        return []
    found: list[Access] = []
    async with database.engine.connect() as connection:
        await connection.execute(text("ANALYZE TABLE usage_events"))
        for sql, parameters in statements:
            rows = await connection.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {sql}", parameters)
            found += [
                Access(row["table"], row["type"], row["key"], row["Extra"] or "")
                for row in rows.mappings()
            ]
    return found
