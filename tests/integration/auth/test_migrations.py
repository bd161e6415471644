"""The migrations create exactly the tables that the code expects."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.engine import Connection

from services.auth.app import MIGRATIONS
from services.auth.models import Base
from services.auth.passwords import PasswordHasher
from services.auth.users.service import EmailTaken, create_user, find_user_by_email
from services.common.db import migrations
from services.common.db.columns import UtcDateTime
from services.common.db.database import Database
from services.common.db.migrations import migrate
from services.common.db.schema import SchemaCheck


def differences(connection: Connection) -> list[object]:
    comparing = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(comparing, Base.metadata))


async def test_the_migrated_tables_match_the_models(database_url: str) -> None:
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


@pytest.mark.costly
async def test_any_number_of_processes_may_migrate_at_once(
    database_kind: str, new_database_url: Callable[[str], str]
) -> None:
    url = new_database_url(database_kind)
    command = [sys.executable, "-m", "services.auth", "migrate"]
    environment = os.environ | {"AUTH_DATABASE_URL": url}
    migrating = [await asyncio.create_subprocess_exec(*command, env=environment) for _ in range(2)]

    codes = [await process.wait() for process in migrating]

    assert codes == [0, 0]


@pytest.mark.costly
async def test_an_interrupted_migration_on_sqlite_can_be_repeated(
    new_database_url: Callable[[str], str],
) -> None:
    url = new_database_url("sqlite")
    script = (
        "import os, sys\n"
        "from alembic.operations import Operations\n"
        "from services.auth.app import MIGRATIONS\n"
        "from services.common.db.migrations import migrate\n"
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


async def test_an_older_version_serves_on_a_newer_schema_without_changing_it(
    database_kind: str, new_database_url: Callable[[str], str]
) -> None:
    url = new_database_url(database_kind)
    database = Database(url)
    check = SchemaCheck(database, MIGRATIONS)
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'of_the_next'"))

    during_the_update = await check()
    await asyncio.to_thread(migrate, url, MIGRATIONS)  # as after a rolled-back update
    afterwards = await check()

    async with database.snapshot() as session:
        found = await session.scalar(text("SELECT version_num FROM alembic_version"))
    await database.close()
    assert (during_the_update, afterwards, found) == (None, None, "of_the_next")


BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
USERS_OF_0001 = sa.table(
    "users",
    *(sa.column(name) for name in ("id", "email", "password_hash", "is_admin")),
    *(sa.column(name, UtcDateTime()) for name in ("created_at", "disabled_at")),
)


def migrate_to(url: str, revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrate to the revision of an older version."""
    config = migrations._config(MIGRATIONS)
    config.attributes["url"] = url
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "_check_columns", lambda *_: None)
        command.upgrade(config, revision)


class TestEmailsOfOlderVersions:
    """Addresses as revision 0001 stored them, oldest first."""

    @pytest.fixture
    async def database(
        self,
        database_kind: str,
        new_database_url: Callable[[str], str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> AsyncIterator[Database]:
        self.url = new_database_url(database_kind)
        await asyncio.to_thread(migrate_to, self.url, "0001", monkeypatch)
        database = Database(self.url)
        yield database
        await database.close()

    async def store(self, database: Database, *emails: str) -> None:
        """Store users with their positions as ids."""
        rows = [
            {
                "id": str(n),
                "email": email,
                "password_hash": "x",
                "is_admin": False,
                "created_at": BEGINNING + timedelta(days=n),
                "disabled_at": None,
            }
            for n, email in enumerate(emails)
        ]
        async with database.transaction() as session:
            await session.execute(USERS_OF_0001.insert(), rows)

    async def resolve(self, database: Database, *spellings: str) -> list[str | None]:
        """Return the id of the user that each spelling refers to."""
        async with database.snapshot() as session:
            users = [await find_user_by_email(session, email=each) for each in spellings]
        return [user.id if user else None for user in users]

    async def test_domains_are_normalised(self, database: Database) -> None:
        await self.store(database, "ada@xn--bcher-kva.example", "bob@example\u3002com")

        await asyncio.to_thread(migrate, self.url, MIGRATIONS)

        async with database.snapshot() as session:
            stored = set((await session.scalars(text("SELECT email FROM users"))).all())
        assert stored == {"ada@bücher.example", "bob@example.com"}
        assert await self.resolve(
            database, "ada@bücher.example", "ADA@XN--BCHER-KVA.example", "bob@example.com"
        ) == ["0", "0", "1"]

    async def test_a_user_who_registered_with_a_sharp_s_is_found_by_it(
        self, database: Database
    ) -> None:
        await self.store(database, "strasse@x.io", "ada@strasse.de")

        await asyncio.to_thread(migrate, self.url, MIGRATIONS)

        assert await self.resolve(
            database, "straße@x.io", "STRASSE@x.io", "ada@straße.de", "ada@xn--strae-oqa.de"
        ) == ["0", "0", "1", None]
        hasher = PasswordHasher(threads=1)
        with pytest.raises(EmailTaken):
            async with database.transaction() as session:
                await create_user(
                    session, hasher=hasher, email="straße@x.io", password="correct horse"
                )
        hasher.close()

    async def test_two_users_stay_separate_and_are_found_by_the_stored_spelling(
        self, database: Database
    ) -> None:
        await self.store(
            database,
            "ada@xn--bcher-kva.example",
            "ada@bücher.example",
            "bob@example\u3002com",
            "bob@example.com",
            "eve@xn--bcher-kva\u3002example",
            "eve@xn--bcher-kva.example",
        )

        await asyncio.to_thread(migrate, self.url, MIGRATIONS)
        await asyncio.to_thread(migrate, self.url, MIGRATIONS)

        assert await self.resolve(
            database,
            "ada@bücher.example",
            "ada@xn--bcher-kva.example",
            "bob@example.com",
            "bob@example\u3002com",
            "eve@bücher.example",
            "eve@xn--bcher-kva.example",
        ) == ["1", "0", "3", "2", "4", "5"]

    async def test_an_invalid_domain_stays_unchanged(self, database: Database) -> None:
        await self.store(database, "ada@my_host", "a" * 64 + "@" + "x" * 180)

        await asyncio.to_thread(migrate, self.url, MIGRATIONS)

        assert await self.resolve(database, "ADA@MY_HOST", "a" * 64 + "@" + "x" * 180) == [
            "0",
            "1",
        ]

    async def test_an_interrupted_migration_is_resumed(self, database: Database) -> None:
        await self.store(database, "ada@xn--bcher-kva.example", "ada@bücher.example")
        await asyncio.to_thread(migrate, self.url, MIGRATIONS)
        async with database.transaction() as session:
            await session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        if database.engine.dialect.name == "sqlite":
            return  # a SQLite migration is all or nothing

        await asyncio.to_thread(migrate, self.url, MIGRATIONS)

        assert await self.resolve(database, "ada@xn--bcher-kva.example", "ada@bücher.example") == [
            "0",
            "1",
        ]
