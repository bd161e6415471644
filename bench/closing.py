"""Benchmarks of closing a month: time and memory, a preview of one account, and verify."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import pymysql

from bench import rows
from bench.figures import Figure
from harness.programs import ROOT
from harness.services import ServiceProcesses
from services.billing.usage.sums import month_of

PREVIEWS = 20


def close_a_month(
    platform: ServiceProcesses,
    connection: pymysql.Connection,
    *,
    events: int,
    price_id: str,
    say: Callable[[str], None],
) -> list[Figure]:
    """Store last month's events of 1,000 accounts, preview one, close the month and verify it.

    All of the events have a ledger entry, as they always do but for those of the version before.
    """
    end = month_of(datetime.now(UTC))
    since = month_of(end - timedelta(days=1))
    period = f"{since:%Y-%m}"
    say(f"storing {events:,} events of {period}")
    rows.fill(connection, events=events, price_id=price_id, since=since, until=end)

    query = {"account": rows.account(rows.ACCOUNTS // 2), "period": period}
    with platform.client("billing", platform.admin_token()) as billing:
        previews_ms = [
            _ms(lambda: billing.get("/invoices/preview", params=query).raise_for_status())
            for _ in range(PREVIEWS)
        ]
    say(f"closing {period}")
    close_s, close_mib = _run(platform, "close", period, "--json")
    say("verifying")
    verify_s, verify_mib = _run(platform, "verify")
    size = f"{events:,} events, {rows.ACCOUNTS:,} accounts"
    return [
        Figure(
            f"preview of one account, {size}",
            median(previews_ms),
            "ms",
            f"median of {PREVIEWS}, worst {max(previews_ms):.1f} ms",
            at_most=100,
        ),
        Figure(
            f"events closed per second, {size}",
            events / close_s,
            "events/s",
            f"{close_s:.1f} s, {close_mib:.0f} MiB at most",
            at_least=100_000,
        ),
        Figure(
            f"events verified per second, {size}",
            events / verify_s,
            "events/s",
            f"{verify_s:.1f} s, {verify_mib:.0f} MiB at most",
            at_least=83_000,
        ),
    ]


def _run(platform: ServiceProcesses, *arguments: str) -> tuple[float, float]:
    """Run a command of `tollgate billing`; return its seconds and the most memory it used, MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "billing", *arguments],
        cwd=ROOT,
        env=os.environ | platform.environment,
        stdout=subprocess.DEVNULL,
    )
    most_mib = 0.0
    while process.poll() is None:
        most_mib = max(most_mib, peak_mib(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"tollgate billing {' '.join(arguments)} failed")
    return time.perf_counter() - started, most_mib


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has used since it began its program."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has just ended
        return 0.0
    return sum(
        int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")
    )


def _ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000
