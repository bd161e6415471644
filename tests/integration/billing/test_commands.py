"""`tollgate billing close` and `archive`, killed in the middle and repeated, and `recall`."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import orjson
import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from cli.main import app
from harness.programs import ROOT
from harness.usage_events import event
from harness.waiting import eventually_async
from services.billing.archives.reading import Archives
from services.billing.archives.store import ArchiveStore
from services.billing.database import MIGRATIONS
from services.billing.invoices.models import Invoice
from services.billing.models import UsageEvent
from services.billing.verify import verify
from services.common.db.database import Database
from services.common.db.migrations import migrate
from tests.integration.billing.money import credit, money, new_id, spent, store_prepaid, take
from tests.integration.billing.months import DURING, PERIOD, close, deliver

ACCOUNTS = 300


def start(url: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "billing", *arguments],
        cwd=ROOT,
        env=os.environ | {"BILLING_DATABASE_URL": url} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.costly
@pytest.mark.any_database
async def test_a_killed_run_continues_when_repeated(database: Database, database_url: str) -> None:
    await deliver(
        database,
        [event(account=new_id(), time=DURING, rows=n) for n in range(ACCOUNTS)],
        now=DURING,
    )

    first = start(database_url, "close", PERIOD)
    await eventually_async(lambda: has_invoices(database))
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    again = start(database_url, "close", PERIOD, "--json")
    out, err = again.communicate(timeout=60)

    assert again.returncode == 0, err
    numbers = [each["number"] for each in orjson.loads(out)["invoices"]]
    assert numbers == [f"INV-{n:06d}" for n in range(1, ACCOUNTS + 1)]
    assert await verify(database) == []


async def has_invoices(database: Database) -> bool:
    async with database.snapshot() as session:
        return bool(await session.scalar(select(func.count()).select_from(Invoice)))


@pytest.mark.costly
async def test_a_killed_archiver_continues_when_repeated(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    await deliver(database, [event(time=DURING, rows=n) for n in range(50)], now=DURING)
    await close(database)
    archive = partial(start, database_url, "archive", PERIOD, BILLING_ARCHIVE=str(tmp_path))

    first = archive()
    assert first.stderr is not None
    while b"recorded" not in (line := first.stderr.readline()):
        assert line, "it ended before that"
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    out, err = (again := archive()).communicate(timeout=60)

    assert again.returncode == 0, err
    assert out.decode().startswith(f"{PERIOD} is archived: 50 events in 1 file of ")
    async with database.snapshot() as session:
        assert await session.scalar(select(func.count()).select_from(UsageEvent)) == 0
    assert await verify(database, Archives(ArchiveStore(str(tmp_path)))) == []


@pytest.mark.parametrize(
    ("period", "code", "reason"),
    [("October", 2, "must be a month"), ("1999-12", 1, "is not closed")],
)
def test_a_month_that_cannot_be_archived_is_named(
    period: str, code: int, reason: str, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/billing.db"
    migrate(url, MIGRATIONS)
    environment = {"BILLING_DATABASE_URL": url, "TOLLGATE_HOME": str(tmp_path)}

    result = CliRunner(env=environment).invoke(app, ["billing", "archive", period])

    assert result.exit_code == code, result.output
    assert reason in result.output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["October"], 2),
        ([PERIOD, "--force"], 2),
        (["2998-01"], 1),
    ],
)
def test_a_wrong_month_is_refused(arguments: list[str], code: int, tmp_path: Path) -> None:
    path = f"sqlite+aiosqlite:///{tmp_path}/billing.db"

    result = CliRunner(env={"BILLING_DATABASE_URL": path}).invoke(
        app, ["billing", "close", *arguments]
    )

    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


@pytest.mark.costly
@pytest.mark.any_database
async def test_the_command_recalls_a_version_at_once(database: Database, database_url: str) -> None:
    await store_prepaid(database)
    await credit(database, 100)
    event_of_it = spent(20, 1)
    await take(database, [event_of_it])
    version = event_of_it["data"]["version"]

    process = start(database_url, "recall", "wine", version, "--reason", "Wrong labels.")
    out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert out.decode().startswith(f"wine {version} is recalled: ")
    assert await money(database) == (100, 0)
