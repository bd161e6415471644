"""`tollgate audit verify`, on each kind of database."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import update
from typer.testing import CliRunner, Result

from cli.main import app
from services.auth.app import MIGRATIONS
from services.auth.audit.service import OPERATOR, record
from services.auth.models import AuditEntry
from services.common.db.database import Database
from services.common.db.migrations import migrate


async def verify(*arguments: str) -> Result:
    """Run the command in a thread, because it starts a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["audit", "verify", *arguments])


@pytest.fixture
async def database(
    database_kind: str, new_database_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Database]:
    """A database with three entries, which no process has chained yet."""
    url = new_database_url(database_kind)
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    monkeypatch.setenv("AUTH_DATABASE_URL", url)
    database = Database(url)
    async with database.transaction() as session:
        for number in range(3):
            await record(session, f"act_{number}", actor=OPERATOR)
    yield database
    await database.close()


async def test_an_intact_log_is_counted_and_its_last_hash_shown(database: Database) -> None:
    shown, as_json = await verify(), await verify("--json")

    document = json.loads(as_json.stdout)
    assert (document["entries"], document["broken_at"]) == (3, None)
    assert shown.stdout == f"3 entries, last hash {document['last_hash']}\n"
    assert (shown.exit_code, as_json.exit_code) == (0, 0)


async def test_a_changed_entry_is_named_and_the_exit_code_is_1(database: Database) -> None:
    await verify()
    async with database.transaction() as session:
        await session.execute(update(AuditEntry).where(AuditEntry.id == 2).values(actor="eve"))

    ended, as_json = await verify(), await verify("--json")

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: Entry 2 does not continue the chain")
    assert json.loads(as_json.stdout)["broken_at"] == 2


async def test_a_database_that_cannot_be_read_is_one_line(
    new_database_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_DATABASE_URL", new_database_url("sqlite"))

    ended = await verify()

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: AUTH_DATABASE_URL")
    assert ended.stderr.count("\n") == 1
