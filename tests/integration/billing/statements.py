"""What the database does for a call: the statements, and on MySQL how it reads their tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from sqlalchemy import event, text

from services.common.db.database import Database


class Statement(NamedTuple):
    """A statement as the driver got it."""

    sql: str
    parameters: Any


class Access(NamedTuple):
    """How a statement reads one table: by which key, and what it does besides."""

    table: str
    kind: str
    key: str | None
    extra: str


@asynccontextmanager
async def recorded(database: Database) -> AsyncIterator[list[Statement]]:
    """Record the statements that name a usage event's table."""
    statements: list[Statement] = []

    def note(_c: Any, _cursor: Any, sql: str, parameters: Any, _x: Any, _many: bool) -> None:
        if "usage_events" in sql:
            statements.append(Statement(sql, parameters))

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def accesses(database: Database, statements: list[Statement]) -> list[Access]:
    """Return how MySQL reads each table of some SELECTs; nothing on SQLite."""
    if database.engine.dialect.name != "mysql":
        return []
    found: list[Access] = []
    async with database.engine.connect() as connection:
        await connection.execute(text("ANALYZE TABLE usage_events"))
        for sql, parameters in statements:
            rows = await connection.exec_driver_sql(f"EXPLAIN {sql}", parameters)
            found += [
                Access(row["table"], row["type"], row["key"], row["Extra"] or "")
                for row in rows.mappings()
            ]
    return found
