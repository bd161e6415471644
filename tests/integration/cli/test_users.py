"""`tollgate users`, on each kind of database."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from cli.main import app
from services.auth.app import MIGRATIONS
from services.auth.models import PendingAuditEntry, QueuedMail, User
from services.common.db.database import Database
from services.common.db.migrations import migrate

ADA = "ada@bücher.example"
COMMANDS_OF_NOBODY = (
    ("disable", "nobody@example.com"),
    ("enable", "nonsense"),
    ("reset-second-factor", "nobody@example.com"),
)
ROOT = Path(__file__).parents[3]

Run = Callable[..., Awaitable[Result]]


async def run(*arguments: str) -> Result:
    """Run `tollgate users` in this process, in a thread because it starts a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["users", *arguments])


@pytest.fixture
async def database_url(database_kind: str, new_database_url: Callable[[str], str]) -> str:
    url = new_database_url(database_kind)
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    return url


@pytest.fixture
async def tollgate(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return `tollgate users` on a database with two administrators and Ada."""
    url = database_url
    database = Database(url)
    async with database.transaction() as session:
        session.add_all(
            User(
                id=email.partition("@")[0],
                email=email,
                password_hash="x",
                is_admin=email != ADA,
                created_at=datetime.now(UTC),
            )
            for email in (ADA, "root@example.com", "second@example.com")
        )
    await database.close()
    monkeypatch.setenv("AUTH_DATABASE_URL", url)
    return run


async def test_a_user_is_disabled_and_enabled_by_any_spelling(tollgate: Run) -> None:
    disabled = await tollgate("disable", "ADA@xn--bcher-kva.example")
    again = await tollgate("disable", ADA, "--json")
    enabled = await tollgate("enable", ADA, "--json")

    shown = {"id": "ada", "email": ADA}
    assert disabled.stdout == "ada@bücher.example: disabled\n"
    assert json.loads(again.stdout) == shown | {"disabled": True}
    assert json.loads(enabled.stdout) == shown | {"disabled": False}
    assert [each.exit_code for each in (disabled, again, enabled)] == [0] * 3


async def test_the_last_administrator_is_disabled_only_with_force(tollgate: Run) -> None:
    one_of_two = await tollgate("disable", "second@example.com")
    the_last = await tollgate("disable", "root@example.com")
    forced = await tollgate("disable", "root@example.com", "--force")

    assert [each.exit_code for each in (one_of_two, the_last, forced)] == [0, 1, 0]
    assert the_last.stdout == ""
    assert the_last.stderr == (
        "error: This is the last administrator; use --force to disable it anyway.\n"
    )


async def test_a_lost_second_factor_is_turned_off_audited_and_mailed(
    tollgate: Run, database_url: str
) -> None:
    database = Database(database_url)
    async with database.transaction() as session:
        user = await session.get_one(User, "ada")
        user.totp_secret, user.totp_confirmed_at = "x" * 64, datetime.now(UTC)

    reset = await tollgate("reset-second-factor", ADA)
    again = await tollgate("reset-second-factor", ADA, "--json")

    async with database.snapshot() as session:
        user = await session.get_one(User, "ada")
        [entry] = await session.scalars(select(PendingAuditEntry))
        [mail] = await session.scalars(select(QueuedMail))
    await database.close()
    assert reset.stdout == "ada@bücher.example: second factor turned off\n"
    assert json.loads(again.stdout)["changed"] is False
    assert (user.totp_secret, user.totp_confirmed_at) == (None, None)
    assert (entry.action, entry.actor, entry.target) == ("totp_disabled", "operator", "ada")
    assert mail.user_id == "ada"


async def test_an_unknown_email_is_one_line_and_exit_code_1(tollgate: Run) -> None:
    for words in COMMANDS_OF_NOBODY:
        ended = await tollgate(*words)
        assert (ended.exit_code, ended.stdout) == (1, "")
        assert ended.stderr == "error: No user has this e-mail address.\n"


@pytest.mark.parametrize("command", ["disable", "enable", "reset-second-factor"])
async def test_wrong_usage_is_exit_code_2_and_help_is_0(command: str) -> None:
    wrong, help_ = await run(command), await run(command, "--help")

    assert (wrong.exit_code, help_.exit_code) == (2, 0)
    assert "--json" in help_.stdout


@pytest.mark.costly
def test_a_database_that_is_not_migrated_is_one_line(
    database_kind: str, new_database_url: Callable[[str], str]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cli.main", "users", "disable", "a@x.io"],
        cwd=ROOT,
        env=os.environ | {"AUTH_DATABASE_URL": new_database_url(database_kind)},
        text=True,
        capture_output=True,
    )

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
