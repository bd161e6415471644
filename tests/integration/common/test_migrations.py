"""What migrations must survive: a crash at any point, and pods of the previous version.

Each service tests its own schema, and that any number of processes can migrate at once.
"""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from harness.programs import ROOT
from services.auth.app import MIGRATIONS as AUTH
from services.billing.database import MIGRATIONS as BILLING
from services.common.db.migrations import migrate
from services.common.db.schema import list_revisions

HISTORIES = {"auth": AUTH, "billing": BILLING}

DYING_EVER_LATER = """
import importlib, os, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from services.common.db.migrations import migrate

url, scripts, most = sys.argv[1], Path(sys.argv[2]), 100
importlib.import_module(f"services.{scripts.parent.name}.models")  # once, not in every child
changes = ("CREATE", "ALTER", "DROP", "INSERT", "UPDATE", "DELETE")

def die_after(statements):
    left = statements

    def count(connection, cursor, statement, *rest):
        nonlocal left
        left -= statement.lstrip().startswith(changes)
        if left == 0:
            os._exit(9)

    event.listen(Engine, "after_cursor_execute", count)
    migrate(url, scripts)
    os._exit(0)

for statements in range(1, most):
    child = os.fork() or die_after(statements)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 9:
        print(f"died {statements - 1} times")
        sys.exit(code)
"""


def at_revision(history: str, revision: str, url: str) -> None:
    """Migrate a database to a revision."""
    config = Config()
    config.set_main_option("script_location", str(HISTORIES[history]))
    config.attributes["url"] = url
    command.upgrade(config, revision)


def steps() -> list[tuple[str, str, str]]:
    """Return history, previous and next revision for every step except the first."""
    return [
        (history, script.down_revision, script.revision)
        for history, folder in HISTORIES.items()
        for script in ScriptDirectory(folder).walk_revisions()
        if isinstance(script.down_revision, str)
    ]


def a_row(table: sa.Table, *, number: int) -> dict[str, Any]:
    """Return values for every column that differ between rows."""
    samples: dict[type, Any] = {
        int: number,
        float: float(number),
        bool: False,
        str: str(number),
        bytes: str(number).encode(),
        datetime: datetime(2026, 1, number, tzinfo=UTC).replace(tzinfo=None),
        object: {"number": number},
    }
    return {column.name: samples[column.type.python_type] for column in table.columns}


@pytest.mark.parametrize("history", HISTORIES)
def test_readiness_knows_the_revisions_that_alembic_runs(history: str) -> None:
    scripts = ScriptDirectory(HISTORIES[history]).walk_revisions()

    oldest_first = [script.revision for script in scripts][::-1]

    assert list_revisions(HISTORIES[history]) == oldest_first


@pytest.mark.costly
@pytest.mark.parametrize("history", HISTORIES)
def test_a_migration_killed_on_mysql_resumes_after_any_statement(
    history: str, new_database_url: Callable[[str], str]
) -> None:
    url = new_database_url("mysql")
    script = [sys.executable, "-c", DYING_EVER_LATER, url, str(HISTORIES[history])]

    result = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[1]) >= 3


def test_a_table_of_other_software_is_not_mistaken_for_an_earlier_run(
    new_database_url: Callable[[str], str],
) -> None:
    url = new_database_url("mysql")
    engine = sa.create_engine(url.replace("aiomysql", "pymysql"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE accounts (id INT PRIMARY KEY, owner TEXT)"))

    for _ in range(2):
        with pytest.raises(sa.exc.InvalidRequestError, match="'accounts' lacks available, c"):
            migrate(url, BILLING)
    engine.dispose()


@pytest.mark.parametrize(("history", "before", "after"), steps())
def test_the_previous_version_can_still_read_and_write_after_each_migration(
    history: str, before: str, after: str, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'db'}"
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'db'}")
    at_revision(history, before, url)
    known = sa.MetaData()
    known.reflect(engine)
    tables = [table for table in known.sorted_tables if table.name != "alembic_version"]
    with engine.begin() as connection:
        for table in tables:
            connection.execute(table.insert(), a_row(table, number=1))

    at_revision(history, after, url)

    with engine.begin() as connection:
        for table in tables:
            connection.execute(table.insert(), a_row(table, number=2))
            found = connection.execute(sa.select(table).order_by(*table.primary_key)).mappings()
            assert [dict(row) for row in found] == [a_row(table, number=n) for n in (1, 2)]
    engine.dispose()
