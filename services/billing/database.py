"""The database of the billing service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from services.common.db.database import Database, translated_errors

MIGRATIONS = Path(__file__).parent / "migrations"


# No time limit for these statements. MariaDB reads the first comment, MySQL 8 the second.
# MySQL cuts off the texts of groups at 1,024 bytes; MariaDB's default is better.
_NO_LIMIT = (
    "SET SESSION innodb_lock_wait_timeout=5, group_concat_max_len=1048576"
    " /*M!100000 , max_statement_time=0 */ /*!80000 , max_execution_time=0 */"
)


@asynccontextmanager
async def long_snapshot(database: Database) -> AsyncIterator[AsyncConnection]:
    """Open a connection that keeps seeing the database as it is now, for as long as it takes."""
    async with _unlimited(database) as connection:
        on_mysql = connection.dialect.name == "mysql"
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ"} if on_mysql else {}
        await connection.execution_options(tollgate_read_only=True, **options)
        yield connection


@asynccontextmanager
async def long_transaction(database: Database) -> AsyncIterator[AsyncSession]:
    """Run a unit of work like `Database.transaction`, for as long as it takes.

    Raises:
        LostRace: it waited too long for another transaction's locks.
        Unavailable: the database is unavailable.
    """
    with translated_errors():
        async with (
            _unlimited(database) as connection,
            AsyncSession(connection, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session


@asynccontextmanager
async def _unlimited(database: Database) -> AsyncIterator[AsyncConnection]:
    """Open a connection whose statements have no time limit."""
    async with database.engine.connect() as connection:
        on_mysql = connection.dialect.name == "mysql"
        try:
            if on_mysql:
                await connection.execute(text(_NO_LIMIT))
                await connection.commit()  # the caller chooses how its transaction begins
            yield connection
        finally:
            if on_mysql:
                await connection.invalidate()  # the next user needs the limit
