"""The migrations make exactly the tables the code was written for."""

import asyncio
from collections.abc import Callable

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection

from services.auth.app import MIGRATIONS
from services.auth.models import Base
from services.common.db import Database, SchemaCheck, migrate


def differences(connection: Connection) -> list[object]:
    migrations = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(migrations, Base.metadata))


async def test_the_migrated_tables_are_the_models(database_url: str) -> None:
    database = Database(database_url)
    async with database.engine.connect() as connection:
        found = await connection.run_sync(differences)
    await database.close()

    assert found == []


async def test_a_fresh_database_is_ready_only_once_migrated(
    database_kind: str, new_database_url: Callable[[str], str]
) -> None:
    url = new_database_url(database_kind)
    database = Database(url)
    check = SchemaCheck(database, MIGRATIONS)

    before = await check()
    migrating = [asyncio.to_thread(migrate, url, MIGRATIONS) for _ in range(2)]
    await migrating[0]
    await migrating[1]
    after = await check()
    await database.close()

    assert before == "The database is not migrated to this version."
    assert after is None
