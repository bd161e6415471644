"""One seeded run: load, kills, and the final checks."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.load import Caller, Load
from harness.accounts import LITTLE, PLENTY, Account, new_account, new_prepaid_account
from harness.mariadb import Server, running_server
from harness.plans import PER_REQUEST, PER_ROW
from harness.services import ServiceProcesses, running_services
from services.common.contracts import format_amount, parse_amount

VICTIMS = ("database", "billing", "inference")
MAX_UPTIME_S = 2.0
MAX_DOWNTIME_S = 2.0

Say = Callable[[str], None]


@dataclass
class Report:
    """The outcome of a run, which passed if `differences` is empty."""

    seed: int
    seconds: float
    kills: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    served: int = 0
    """Distinct keys that were answered."""
    journalled: int = 0
    """Received sequences of all journals; a key sent twice may be journalled twice."""
    billed: int = 0
    """Receipts."""
    differences: list[str] = field(default_factory=list)

    def check(self, name: str, actual: object, expected: object) -> None:
        """Record a difference if there is one."""
        if actual != expected:
            self.differences.append(f"{name}: {actual}, expected {expected}")


def run(*, seed: int, seconds: float, home: Path, say: Say) -> Report:
    """Start the platform with its own database server, kill processes for a while, and check."""
    report = Report(seed, seconds)
    with running_server() as server, running_services(home, server) as platform:
        callers = [
            Caller(new_account(platform)),
            Caller(new_account(platform)),
            Caller(new_prepaid_account(platform, credit=PLENTY), PLENTY),
            Caller(new_prepaid_account(platform, credit=LITTLE), LITTLE, may_run_dry=True),
        ]
        load = Load(platform, callers)
        with ThreadPoolExecutor(len(callers)) as threads:
            calling = [threads.submit(load.call_until_stopped, each) for each in callers]
            try:
                _kill_at_random(platform, server, calling, report, say)
            finally:
                load.stopping.set()
        for future in calling:
            future.result()
        _settle(platform, load, report, say)
        report.answers = load.responses
        for caller in callers:
            _check_caller(platform, caller, report)
        _check_sources(platform, report)
        verified = platform.run("billing", "verify")
        report.check("billing verify", (verified.returncode, verified.stderr), (0, ""))
    report.check("billed", report.billed, report.served)
    return report


def _kill_at_random(
    platform: ServiceProcesses,
    server: Server,
    calling: list[Future[None]],
    report: Report,
    say: Say,
) -> None:
    """Kill one or two processes, restart them, and repeat until the time is over."""
    generator = random.Random(report.seed)  # repeatable
    end = time.monotonic() + report.seconds
    while time.monotonic() < end:
        uptime_s = generator.uniform(0, MAX_UPTIME_S)
        if wait(calling, timeout=uptime_s, return_when=FIRST_EXCEPTION).done:
            return  # a caller failed; its result raises
        victims = generator.sample(VICTIMS, k=generator.choice((1, 1, 2)))
        downtime_s = generator.uniform(0, MAX_DOWNTIME_S)
        say(f"killing {' and '.join(sorted(victims))} for {downtime_s:.1f} s")
        for victim in victims:
            report.kills[victim] += 1
            server.kill() if victim == "database" else platform.kill(victim)
        time.sleep(downtime_s)
        if "database" in victims:
            server.start()
        platform.begin(*(victim for victim in victims if victim != "database"))


def _settle(platform: ServiceProcesses, load: Load, report: Report, say: Say) -> None:
    """Stop inference, deliver the journals of dead runs, then repeat the unpaid requests."""
    _deliver_all(platform, report, say)
    unpaid = [(caller, request) for caller in load.callers for request in caller.unpaid]
    if unpaid:  # a 402 may follow a charge whose response was lost: its repeat is served
        platform.begin("inference")
        with platform.client("inference") as http:
            for caller, request in unpaid:
                load.predict(http, caller, request)
        _deliver_all(platform, report, say)


def _deliver_all(platform: ServiceProcesses, report: Report, say: Say) -> None:
    platform.end("inference")
    first = _replay(platform, report)
    say(f"replayed after the stop: {first['accepted']} new, {first['duplicates']} known events")
    second = _replay(platform, report)
    report.check("second replay", (second["runs"], second["accepted"]), (0, 0))


def _replay(platform: ServiceProcesses, report: Report) -> dict[str, Any]:
    replay = platform.run("billing", "replay", "--json")
    report.check("billing replay", (replay.returncode, replay.stderr), (0, ""))
    replayed: dict[str, Any] = json.loads(replay.stdout)
    return replayed


def _check_caller(platform: ServiceProcesses, caller: Caller, report: Report) -> None:
    """Check that served = billed, that the total is their sum, and a prepaid account's balance."""
    account = caller.account
    requests = len(caller.answered)
    served = set(caller.answered.values())
    amount = requests * PER_REQUEST + caller.rows * PER_ROW
    report.served += requests
    billed = _billed(platform, account)
    report.billed += len(billed)
    report.check(f"{account.id} receipts", len(set(billed)), len(billed))
    report.check(f"{account.id} unbilled", len(served - set(billed)), 0)
    report.check(f"{account.id} unserved", len(set(billed) - served), 0)
    total = platform.usage(account.token)
    report.check(
        f"{account.id} usage",
        (total["requests"], total["rows"], total["amount"]),
        (requests, caller.rows, format_amount(amount)),
    )
    if caller.credit is not None:
        with platform.client("billing", account.token) as billing:
            money = billing.get("/balance").json()
        remaining = caller.credit - amount
        report.check(f"{account.id} balance", parse_amount(money["balance"]), remaining)
        report.check(f"{account.id} overspent", remaining < 0, False)
        report.check(f"{account.id} held", money["held"], "0")


def _billed(platform: ServiceProcesses, account: Account) -> list[str]:
    ids: list[str] = []
    cursor: dict[str, Any] = {}
    with platform.client("billing", account.token) as billing:
        while True:
            page = billing.get("/usage/events", params={"limit": 1000} | cursor).json()
            ids += [event["id"] for event in page["events"]]
            if page["next_cursor"] is None:
                return ids
            cursor = {"cursor": page["next_cursor"]}


def _check_sources(platform: ServiceProcesses, report: Report) -> None:
    """Check that every journal is closed and complete."""
    with platform.client("billing", platform.admin_token()) as billing:
        sources = billing.get("/sources").json()["sources"]
    report.journalled = sum(source["received"] for source in sources)
    for source in sources:
        state = (source["state"], source["received"], source["missing"])
        report.check(f"journal {source['journal']}", state, ("closed", source["last"], []))
