"""What SQLite needs of its connections."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.common.db.database import Database

ROWS = 2_500
"""More than are read with a statement, twice."""


@pytest.fixture
async def facts(tmp_path: Path) -> AsyncIterator[AsyncConnection]:
    """A connection to a database with the facts 0 to 2,499."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/facts.db")
    async with database.engine.connect() as connection:
        await connection.execute(text("CREATE TABLE facts (id INTEGER PRIMARY KEY)"))
        values = [{"id": number} for number in range(ROWS)]
        await connection.execute(text("INSERT INTO facts VALUES (:id)"), values)
        yield connection
    await database.close()


async def test_a_closed_connection_leaves_no_lock_behind(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    first, second = Database(url), Database(url, deadline_s=5)
    async with first.transaction() as session:
        await session.execute(text("CREATE TABLE facts (id INTEGER)"))

    async with first.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.execute("BEGIN IMMEDIATE")
        unread = await driver.execute("INSERT INTO facts VALUES (1) RETURNING id")
        await connection.invalidate()

    async with second.transaction() as session:  # would otherwise wait for the unread row
        assert (await session.scalar(text("SELECT count(*) FROM facts"))) == 0
    del unread
    await first.close()
    await second.close()


@pytest.mark.parametrize("count", [0, 1, 999, 1_000, 1_001, 2_000, ROWS])
async def test_all_rows_are_read_however_many(facts: AsyncConnection, count: int) -> None:
    found = await facts.execute(text(f"SELECT id FROM facts ORDER BY id LIMIT {count}"))

    assert list(found.scalars()) == list(range(count))


@pytest.mark.parametrize("part", [1, 7, 999, 1_000, 1_001, 5_000])
async def test_a_stream_has_every_row_once(facts: AsyncConnection, part: int) -> None:
    async with facts.stream(text("SELECT id FROM facts ORDER BY id")) as rows:
        parts = [list(each) async for each in rows.scalars().partitions(part)]

    assert [number for each in parts for number in each] == list(range(ROWS))
    assert {len(each) for each in parts[:-1]} <= {part}


async def test_a_stream_may_end_early_and_be_read_row_by_row(facts: AsyncConnection) -> None:
    async with facts.stream(text("SELECT id FROM facts ORDER BY id")) as rows:
        first = await rows.fetchone()
    await facts.execute(text("DROP TABLE facts"))  # an unfinished statement would lock it

    assert first == (0,)


async def test_counts_and_new_rows_are_reported(facts: AsyncConnection) -> None:
    returned = await facts.execute(text("INSERT INTO facts VALUES (9999) RETURNING id"))
    deleted = await facts.execute(text("DELETE FROM facts WHERE id < 10"))

    assert (returned.scalar_one(), deleted.rowcount) == (9999, 10)


async def test_a_statement_that_fails_leaves_the_connection_usable(facts: AsyncConnection) -> None:
    with pytest.raises(IntegrityError):
        await facts.execute(text("INSERT INTO facts VALUES (1)"))

    assert await facts.scalar(text("SELECT count(*) FROM facts")) == ROWS
