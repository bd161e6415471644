"""A start skips preparation only while everything is as the last one left it."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cli.local import prepared
from harness.plans import LOCAL_PLAN_FILE
from harness.platform import Platform

SETTINGS = {"AUTH_REGISTRATION": "verify", "AUTH_PORT": "8101"}


@pytest.fixture
def home(new_home: Callable[[], Path]) -> Path:
    """Return a state folder that is prepared for `SETTINGS`."""
    home = new_home()
    prepared.record(home, environment=SETTINGS)
    return home


def is_prepared(home: Path, **changed: str) -> bool:
    return prepared.is_prepared(home, environment=SETTINGS | changed)


def execute(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


def test_nothing_changed(home: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(home, tmp_path / "moved")

    assert is_prepared(home)
    assert is_prepared(moved)
    assert is_prepared(home, TOLLGATE_LOG_FORMAT="text", TOLLGATE_HOME="/elsewhere", PATH="/bin")
    assert is_prepared(home, AUTH_PORT="8102", INFERENCE_PUBLIC_URL="http://127.0.0.1:8103")
    assert is_prepared(home, AUTH_DATABASE_URL="")


@pytest.mark.parametrize(
    "removed",
    [
        "auth.db",
        "billing.db",
        "credentials.json",
        "data/wine/wine.csv",
        "keys/signing.pem",
        "keys/trusted",
        "models/wine/releases",
        "prepared",
    ],
)
def test_something_was_deleted(home: Path, removed: str) -> None:
    path = home / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    assert not is_prepared(home)
    assert removed == "credentials.json" or not path.exists()  # a check creates no database


@pytest.mark.parametrize(
    ("database", "statement"),
    [
        ("auth.db", "UPDATE alembic_version SET version_num = '0001'"),
        ("auth.db", "UPDATE users SET password_hash = 'x' WHERE email LIKE 'demo@%'"),
        ("auth.db", "UPDATE users SET is_admin = 0 WHERE email LIKE 'admin@%'"),
        ("auth.db", "UPDATE users SET disabled_at = '2026-01-01' WHERE email LIKE 'demo@%'"),
        ("auth.db", "DELETE FROM users WHERE email LIKE 'demo@%'"),
        ("auth.db", "UPDATE clients SET secret_sha256 = 'x'"),
        ("auth.db", "DELETE FROM clients"),
        ("billing.db", "UPDATE alembic_version SET version_num = '0001'"),
        ("billing.db", "DROP TABLE alembic_version"),
    ],
)
def test_a_database_was_changed(home: Path, database: str, statement: str) -> None:
    execute(home / database, statement)

    assert not is_prepared(home)


@pytest.mark.parametrize("name", ["signing.pem", "trusted/another.pem"])
def test_a_key_was_changed(home: Path, name: str) -> None:
    (home / "keys" / name).write_text("another")

    assert not is_prepared(home)


def test_another_user_changes_nothing(home: Path) -> None:
    copied = "SELECT 'new', 'new@x.io', password_hash, is_admin, created_at, disabled_at FROM users"
    columns = "id, email, password_hash, is_admin, created_at, disabled_at"
    execute(home / "auth.db", f"INSERT INTO users ({columns}) {copied} LIMIT 1")

    assert is_prepared(home)


@pytest.mark.parametrize(
    "variable",
    ["AUTH_REGISTRATION", "BILLING_DEFAULT_PLAN", "TRAINER_SEED", "INFERENCE_ALLOW_JOBLIB"],
)
def test_a_setting_was_changed(home: Path, variable: str) -> None:
    assert not is_prepared(home, **{variable: "1"})


@pytest.mark.parametrize("variable", sorted(prepared.ELSEWHERE))
def test_what_is_not_in_the_state_folder_is_prepared_at_each_start(
    home: Path, variable: str
) -> None:
    (home / "prepared").unlink()

    prepared.record(home, environment=SETTINGS | {variable: "elsewhere"})

    assert not (home / "prepared").exists()
    assert not is_prepared(home, **{variable: "elsewhere"})


def test_the_code_was_changed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "code" / "services" / "auth" / "new_migration.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(prepared, "CODE", tmp_path / "code")
    prepared.record(home, environment=SETTINGS)
    before = is_prepared(home)

    os.utime(module, (0, 0))

    assert before
    assert not is_prepared(home)


def test_a_damaged_record_counts_as_none(home: Path) -> None:
    (home / "prepared").write_bytes(b"\xff")

    assert not is_prepared(home)


@pytest.mark.costly
def test_preparing_leaves_a_private_record(new_home: Callable[[], Path]) -> None:
    platform = Platform(new_home())

    platform.prepare()

    plan = {"BILLING_DEFAULT_PLAN": str(LOCAL_PLAN_FILE)}
    assert prepared.is_prepared(platform.home, environment=platform.environment | plan)
    assert (platform.home / "prepared").stat().st_mode & 0o777 == 0o600
