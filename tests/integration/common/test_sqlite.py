"""What SQLite needs of its connections."""

from pathlib import Path

from sqlalchemy import text

from services.common.db.database import Database


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
