"""`tollgate auth keys`, on each kind of database."""

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from services.auth.app import MIGRATIONS
from services.common.db.migrations import migrate

pytestmark = pytest.mark.costly


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["auth", "keys", *arguments])


@pytest.fixture
def database_url(
    database_kind: str, new_database_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> str:
    url = new_database_url(database_kind)
    migrate(url, MIGRATIONS)
    monkeypatch.setenv("AUTH_DATABASE_URL", url)
    monkeypatch.setenv("AUTH_PASSPHRASE", "a passphrase")
    monkeypatch.setattr("services.auth.keys.NEW_KEY_BITS", 2048)
    return url


def states() -> list[str]:
    return [key["state"] for key in json.loads(run("list", "--json").stdout)]


@pytest.mark.usefixtures("database_url")
def test_keys_are_rotated_listed_and_retired() -> None:
    none = run("list")
    first = run("rotate")
    waiting = run("rotate", "--json")
    again = run("rotate")
    present = states()
    leaked = run("rotate", "--now")
    after = run("list")

    assert none.stdout == "No keys yet; auth creates the first one when it starts\n"
    assert "is published, and signs from" in first.stdout
    assert json.loads(waiting.stdout)["began"] is True
    assert "is already published, and signs from" in again.stdout
    assert present == ["signs", "published"]
    assert leaked.stdout.count("\n") == 2
    assert "retired: " in leaked.stdout
    assert "Every access token issued until now is refused" in leaked.stderr
    assert [line.split()[1] for line in after.stdout.splitlines()] == [
        "retired",
        "retired",
        "signs",
    ]
    assert leaked.stdout.split()[0] in after.stdout


@pytest.mark.usefixtures("database_url")
def test_a_wrong_passphrase_is_explained_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("rotate").exit_code == 0
    monkeypatch.setenv("AUTH_PASSPHRASE", "another")

    refused = run("rotate")

    assert refused.exit_code == 1
    assert refused.stderr == "error: The passphrase does not decrypt the keys in the database.\n"
