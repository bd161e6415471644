"""SQLite databases that cannot be opened."""

import asyncio
import threading
from pathlib import Path

import pytest

from services.common.db.database import Database
from services.common.errors import Unavailable


def test_a_database_that_cannot_be_opened_leaves_no_thread_behind(tmp_path: Path) -> None:
    async def connect() -> None:
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/missing/sample.db")
        with pytest.raises(Unavailable):
            async with database.transaction() as session:
                await session.connection()
        await database.close()

    before = set(threading.enumerate())

    for _ in range(50):  # a thread that outlives its event loop fails in about half of them
        asyncio.run(connect())

    assert not {each.name for each in threading.enumerate() if each not in before}
