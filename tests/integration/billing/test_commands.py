"""`tollgate billing close`, killed in the middle and repeated, and `tollgate billing recall`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from cli.main import app
from harness.programs import ROOT
from harness.usage_events import event
from harness.waiting import eventually_async
from services.billing.invoices.models import Invoice
from services.billing.verify import verify
from services.common.db.database import Database
from tests.integration.billing.money import credit, money, new_id, spent, store_prepaid, take
from tests.integration.billing.months import DURING, PERIOD, deliver

ACCOUNTS = 300


def start(url: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "billing", *arguments],
        cwd=ROOT,
        env=os.environ | {"BILLING_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


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
