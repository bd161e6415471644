"""The migrations make exactly the tables the code was written for."""

import asyncio
import os
import sys
from collections.abc import Callable

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.engine import Connection

from services.auth.app import MIGRATIONS
from services.auth.models import Base
from services.common.db import Database
from services.common.migrations import SchemaCheck, migrate


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


async def test_any_number_may_migrate_at_once(
    database_kind: str, new_database_url: Callable[[str], str]
) -> None:
    url = new_database_url(database_kind)
    command = [sys.executable, "-m", "services.auth", "migrate"]
    environment = os.environ | {"AUTH_DATABASE_URL": url}
    migrating = [await asyncio.create_subprocess_exec(*command, env=environment) for _ in range(3)]

    codes = [await process.wait() for process in migrating]

    assert codes == [0, 0, 0]


async def test_a_migration_cut_short_on_sqlite_leaves_nothing_in_the_way(
    new_database_url: Callable[[str], str],
) -> None:
    url = new_database_url("sqlite")
    script = (
        "import os, sys\n"
        "from alembic.operations import Operations\n"
        "from services.auth.app import MIGRATIONS\n"
        "from services.common.migrations import migrate\n"
        "create = Operations.create_table\n"
        "made = []\n"
        "def create_two(self, *args, **kwargs):\n"
        "    made.append(create(self, *args, **kwargs))\n"
        "    return made[-1] if len(made) < 2 else os._exit(9)\n"
        "Operations.create_table = create_two\n"
        "migrate(sys.argv[1], MIGRATIONS)\n"
    )
    cut_short = await asyncio.create_subprocess_exec(sys.executable, "-c", script, url)
    assert await cut_short.wait() == 9

    await asyncio.to_thread(migrate, url, MIGRATIONS)

    database = Database(url)
    assert await SchemaCheck(database, MIGRATIONS)() is None
    await database.close()


async def test_one_version_serves_on_the_schema_of_the_next_and_leaves_it_alone(
    database_kind: str, new_database_url: Callable[[str], str]
) -> None:
    url = new_database_url(database_kind)
    database = Database(url)
    check = SchemaCheck(database, MIGRATIONS)
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'of_the_next'"))

    during_the_update = await check()
    await asyncio.to_thread(migrate, url, MIGRATIONS)  # as an update that is undone does
    afterwards = await check()

    async with database.snapshot() as session:
        found = await session.scalar(text("SELECT version_num FROM alembic_version"))
    await database.close()
    assert (during_the_update, afterwards, found) == (None, None, "of_the_next")
