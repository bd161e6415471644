"""`tollgate billing verify`."""

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from harness.ports import free_port
from harness.processes import await_process, start_process, stop_process
from harness.waiting import is_answering
from services.billing.database import MIGRATIONS
from services.common.db.migrations import migrate

pytestmark = pytest.mark.costly

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def books(tmp_path: Path) -> Path:
    """Migrate an empty database, in a thread because migration runs its own event loop."""
    path = tmp_path / "billing.db"
    await asyncio.to_thread(migrate, f"sqlite+aiosqlite:///{path}", MIGRATIONS)
    return path


def verify(books: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "billing", "verify", *options],
        cwd=ROOT,
        env=os.environ | {"BILLING_DATABASE_URL": f"sqlite+aiosqlite:///{books}"},
        text=True,
        capture_output=True,
    )


def tamper(books: Path) -> None:
    """Add an hour of usage without any event."""
    link = sqlite3.connect(books)
    link.execute(
        "INSERT INTO usage_hours (account, hour, model, price_id, requests, rows, amount)"
        " VALUES ('ada', '2026-11-01 00:00:00', 'wine', 'p', 1, 1, 600000)"
    )
    link.commit()
    link.close()


async def test_consistent_books_pass(books: Path) -> None:
    result = verify(books)

    assert (result.returncode, result.stdout, result.stderr) == (0, "all sums agree\n", "")


async def test_every_difference_is_a_line_and_the_exit_code_is_1(books: Path) -> None:
    tamper(books)

    result, as_json = verify(books), verify(books, "--json")

    assert (result.returncode, as_json.returncode) == (1, 1)
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "ada" in line
    assert json.loads(as_json.stdout) == {"differences": [line.removeprefix("error: ")]}


async def test_an_unreadable_database_is_reported_in_one_line(tmp_path: Path) -> None:
    result = verify(tmp_path / "none" / "billing.db")

    assert result.returncode == 1
    assert result.stderr.startswith("error: BILLING_DATABASE_URL: ")
    assert result.stderr.count("\n") == 1


def test_watching_measures_what_differs_until_it_is_stopped(books: Path, tmp_path: Path) -> None:
    tamper(books)
    port, log = free_port(), tmp_path / "log"

    def measured() -> str:
        metrics = f"http://127.0.0.1:{port}/metrics"
        found = httpx.get(metrics, trust_env=False).text if is_answering(metrics) else ""
        return found if "tollgate_billing_differences 1.0" in found else ""

    process = start_process(
        *(sys.executable, "-m", "cli.main", "billing", "verify", "--watch"),
        *("--metrics-port", str(port)),
        environment=os.environ | {"BILLING_DATABASE_URL": f"sqlite+aiosqlite:///{books}"},
        log=log,
    )
    try:
        await_process(process, measured, log=log)
    finally:
        code = stop_process(process)

    assert code == 0
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["event"] for each in logged] == ["books_differ", "books_verified"]
    assert "ada" in logged[0]["difference"]


def test_a_port_that_is_taken_is_reported_in_one_line(books: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = verify(books, "--watch", "--metrics-port", str(port))

    assert result.returncode == 1
    assert result.stderr == f"error: --metrics-port {port}: Address already in use\n"
