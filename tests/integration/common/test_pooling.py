"""Connections to MySQL in the pool: checked before use and reset after it, without asking."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import aiomysql
import pymysql
import pytest
from sqlalchemy import text

from services.common.db import pooling
from services.common.db.database import Database
from services.common.errors import Unavailable

_ID = text("SELECT CONNECTION_ID()")


@pytest.fixture(scope="module")
def url(new_database_url: Callable[[str], str]) -> str:
    return new_database_url("mysql")


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    async with database.transaction() as session:
        await session.execute(text("CREATE TABLE IF NOT EXISTS things (id INT PRIMARY KEY)"))
        await session.execute(text("DELETE FROM things"))
    yield database
    await database.close()


def kill(url: str, connection_id: int) -> None:
    """End a connection of the server, while this event loop is blocked."""
    parts = urlsplit(url)
    with pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=parts.username,
        password=parts.password or "",
    ) as other:
        other.kill(connection_id)


async def connection_id(database: Database, *, writes: bool = False) -> int:
    async with database.transaction() if writes else database.snapshot() as session:
        return int(await session.scalar(_ID) or 0)


async def test_a_unit_of_work_costs_a_round_trip_for_each_statement_and_its_commit(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connection_id(database)
    await connection_id(database, writes=True)
    name = urlsplit(url).path.removeprefix("/")
    send, sent = aiomysql.Connection._execute_command, []

    async def recorded(connection: aiomysql.Connection, command: int, sql: object) -> None:
        if connection.db == name:  # not what an app of other tests does in the background
            sent.append(sql)
        await send(connection, command, sql)

    monkeypatch.setattr(aiomysql.Connection, "_execute_command", recorded)
    await connection_id(database, writes=True)
    assert sent == [b"SELECT CONNECTION_ID()", "COMMIT"]

    sent.clear()
    await connection_id(database)
    async with database.connection() as connection:
        await connection.execute(_ID)
    assert sent == [b"SELECT CONNECTION_ID()"] * 2


async def test_a_connection_that_the_server_has_closed_is_replaced(
    database: Database, url: str
) -> None:
    first = await connection_id(database)
    kill(url, first)
    await asyncio.sleep(0.05)  # the loop sees the end of the connection

    assert await connection_id(database) != first


async def test_a_connection_that_was_idle_for_long_is_asked_first(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "PING_AFTER_S", -1.0)
    first = await connection_id(database)
    kill(url, first)  # and the loop does not notice before the next use

    assert await connection_id(database) != first


async def test_a_write_that_finds_the_server_read_only_replaces_the_connections_of_reads_too(
    database: Database,
) -> None:
    reader, writer = await connection_id(database), await connection_id(database, writes=True)
    with pytest.raises(Unavailable):
        async with database.transaction() as session:
            await session.execute(text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1290"))

    assert await connection_id(database) != reader
    assert await connection_id(database, writes=True) != writer


async def test_what_was_not_committed_is_rolled_back(database: Database) -> None:
    async with database.sessions() as session:
        await session.execute(text("INSERT INTO things VALUES (1)"))

    async with database.transaction() as other:
        await other.execute(text("INSERT INTO things VALUES (1)"))
        assert await other.scalar(text("SELECT COUNT(*) FROM things")) == 1


async def test_a_unit_of_work_that_is_cancelled_keeps_no_locks(database: Database) -> None:
    inserted = asyncio.Event()

    async def insert_and_wait() -> None:
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO things VALUES (2)"))
            inserted.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(insert_and_wait())
    await inserted.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    async with database.transaction() as session:
        await session.execute(text("INSERT INTO things VALUES (2)"))


async def test_a_raw_transaction_that_is_left_open_is_rolled_back(database: Database) -> None:
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        async with driver.cursor() as cursor:  # behind SQLAlchemy's back
            await cursor.execute("INSERT INTO things VALUES (3)")

    async with database.transaction() as session:
        assert await session.scalar(text("SELECT COUNT(*) FROM things WHERE id = 3")) == 0
