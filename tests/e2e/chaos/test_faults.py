"""One fault at a time, on real processes: what a caller sees, and that the money is right after."""

import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import get_args

import pytest

from harness.accounts import PLENTY, new_prepaid_account
from harness.faulty_proxy import Fault, Proxy
from harness.mariadb import Server
from harness.plans import PER_REQUEST, PER_ROW
from harness.samples import PREDICT, WINE
from harness.services import ServiceProcesses
from harness.waiting import eventually
from services.common.contracts import parse_amount
from services.common.db.database import DEADLINE_S
from tests.e2e.chaos.caller import Caller, new_plan


@pytest.mark.costly
def test_while_billing_is_down_predictions_continue_until_the_journal_is_full(
    platform: ServiceProcesses, caller: Caller
) -> None:
    platform.kill("billing")
    full = caller.predict_until(503, at_most=5_000)
    platform.begin("billing")

    assert full.json()["type"].endswith(":journal_full")
    assert int(full.headers["Retry-After"]) > 0
    assert caller.answered > 1_000
    eventually(caller.all_billed)
    assert caller.predict().status_code == 200


@pytest.mark.parametrize("fault", get_args(Fault))
def test_whatever_happens_to_a_delivery_each_event_is_billed_once(
    fault: Fault, caller: Caller, proxy: Proxy
) -> None:
    eventually(caller.all_billed)
    proxy.fail(fault)
    for _ in range(10):
        assert caller.predict().status_code == 200
    eventually(lambda: proxy.hits >= 1)

    proxy.pass_on()

    eventually(caller.all_billed)


@pytest.mark.costly
def test_a_killed_process_returns_its_credit_as_soon_as_its_journal_is_found(
    platform: ServiceProcesses,
) -> None:
    account = new_prepaid_account(platform, credit=PLENTY)
    headers = {"Content-Type": "application/json"}
    with platform.client("inference", account.token) as inference:
        answer = inference.post(PREDICT, json={"instances": [WINE]}, headers=headers)

    platform.kill("inference")
    with platform.client("billing", account.token) as billing:
        held = billing.get("/balance").json()["held"]
        platform.begin("inference")
        eventually(lambda: billing.get("/balance").json()["held"] == "0")
        balance = billing.get("/balance").json()["available"]

    assert answer.status_code == 200
    assert held != "0"
    assert parse_amount(balance) == PLENTY - PER_REQUEST - PER_ROW


def test_callers_do_not_notice_connections_closed_by_the_server(
    caller: Caller, server: Server
) -> None:
    eventually(caller.all_billed)
    for _ in range(3):
        assert server.end_connections() > 0
        assert caller.usage().status_code == 200
        assert caller.predict().status_code == 200

    eventually(caller.all_billed)


@pytest.mark.costly
def test_everything_recovers_within_seconds_of_a_database_restart(
    platform: ServiceProcesses, caller: Caller, server: Server
) -> None:
    server.stop()
    while_away = caller.usage()
    predicted = caller.predict()
    server.start()

    assert (while_away.status_code, predicted.status_code) == (503, 200)
    eventually(lambda: platform.is_ready("billing"))
    eventually(caller.all_billed)


def test_a_read_only_database_is_a_503_until_it_is_writable(
    platform: ServiceProcesses, caller: Caller, server: Server
) -> None:
    with platform.client("billing", platform.admin_token()) as billing:
        plan = new_plan()
        server.set_read_only(True)
        try:
            pooled = server.connections()
            refused = [billing.post("/plans", json=plan) for _ in range(3)]
            read, predicted = caller.usage(), caller.predict()
            connections = server.connections()
        finally:
            server.set_read_only(False)

        assert {answer.status_code for answer in refused} == {503}
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
        assert (read.status_code, predicted.status_code) == (200, 200)
        # A connection that stays in the pool would lead to the old primary forever.
        assert not pooled <= connections
        eventually(lambda: billing.post("/plans", json=plan).status_code == 201)
    eventually(caller.all_billed)


def test_callers_do_not_notice_connections_that_idled_too_long_for_the_server(
    platform: ServiceProcesses, caller: Caller, server: Server
) -> None:
    server.set_idle_timeout(1)
    try:
        server.end_connections()  # later connections are idle for a second at most
        with platform.client("billing", platform.admin_token()) as billing:
            for _ in range(2):
                opened = billing.post("/plans", json=new_plan())
                before = server.connections()
                eventually(partial(_are_closed, before, server))
                assert (opened.status_code, caller.usage().status_code) == (201, 200)
    finally:
        server.set_idle_timeout(28_800)
        server.end_connections()

    assert caller.predict().status_code == 200
    eventually(caller.all_billed)


def test_a_database_that_hangs_costs_a_503_at_the_deadline_and_no_connection(
    platform: ServiceProcesses, caller: Caller, server: Server
) -> None:
    with platform.client("billing") as billing:
        server.signal(signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(15) as threads:  # more than the pool has connections
                started = time.monotonic()
                answers = [
                    each.result() for each in [threads.submit(caller.usage) for _ in range(15)]
                ]
                took_s = time.monotonic() - started
            alive, ready = billing.get("/healthz"), billing.get("/readyz")
        finally:
            server.signal(signal.SIGCONT)

    assert {answer.status_code for answer in answers} == {503}
    assert took_s < 4 * DEADLINE_S
    assert (alive.status_code, ready.status_code) == (200, 503)
    assert "database" in ready.json()["failing"]
    eventually(lambda: platform.is_ready("billing"))
    with ThreadPoolExecutor(15) as threads:
        after = [each.result() for each in [threads.submit(caller.usage) for _ in range(30)]]
    assert {answer.status_code for answer in after} == {200}
    eventually(caller.all_billed)


def test_a_full_disk_is_an_unbilled_503_until_there_is_space(
    platform: ServiceProcesses, caller: Caller
) -> None:
    inference = platform.children["inference"].pid
    journal = platform.home / "journal"
    written = max(path.stat().st_size for path in journal.glob("*.log"))
    _, hard = resource.prlimit(inference, resource.RLIMIT_FSIZE)
    resource.prlimit(inference, resource.RLIMIT_FSIZE, (written + 100, hard))
    try:
        refused = [caller.predict() for _ in range(3)]
    finally:
        resource.prlimit(inference, resource.RLIMIT_FSIZE, (hard, hard))

    assert {answer.status_code for answer in refused} == {503}
    assert {answer.json()["type"].rpartition(":")[2] for answer in refused} == {
        "journal_unavailable"
    }
    eventually(lambda: caller.predict().status_code == 200)
    eventually(caller.all_billed)


def _are_closed(connections: set[int], server: Server) -> bool:
    return not connections & server.connections()
