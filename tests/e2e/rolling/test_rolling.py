"""Pods come and go under load as in the chart, and no caller notices; `make test-rolling`."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import methodcaller
from typing import Any

import httpx
import pytest

from harness.samples import PREDICT, WINE
from harness.waiting import eventually
from services.common.shutdown import FINISH_S
from tests.e2e.rolling import stuck
from tests.e2e.rolling.conftest import Cluster
from tests.e2e.rolling.load import Account, Load, calling
from tests.e2e.rolling.pods import Ending

pytestmark = pytest.mark.rolling

_SETTLE_S = 1.0
"""Seconds of load before pods begin to move, and after the last has gone."""


def sources(cluster: Cluster) -> list[dict[str, Any]]:
    """Return every journal that has reported to billing."""
    with cluster.client("billing", cluster.admin_token()) as billing:
        sources_listed: list[dict[str, Any]] = billing.get("/sources").json()["sources"]
    return sources_listed


def assert_unnoticed(cluster: Cluster, load: Load) -> None:
    """Check that no request failed, and that each answered prediction is billed once."""
    assert load.failures == []
    assert load.answers > 100
    for account in load.accounts:
        eventually(partial(all_billed, cluster, account))
        assert cluster.usage(account.token)["requests"] == account.answered > 0


def all_billed(cluster: Cluster, account: Account) -> bool:
    return bool(cluster.usage(account.token)["requests"] >= account.answered)


def assert_drained(cluster: Cluster, endings: list[Ending]) -> None:
    """Check that the stopped pods lost no usage and closed their journals."""
    for ending in endings:
        assert list((ending.folder / "journal").glob("*.log")) == [], ending
    sources_listed = sources(cluster)
    assert [source for source in sources_listed if source["missing"]] == []
    states = [source["state"] for source in sources_listed]
    assert states.count("open") == len(cluster.workloads["inference"].pods)
    assert states.count("closed") == len(states) - states.count("open")


def assert_clean(endings: list[Ending]) -> None:
    """Check that every process ended by itself, without an error."""
    assert [ending for ending in endings if ending.code != 0] == []


class TestPodsThatComeAndGo:
    def test_replacing_all_of_them_fails_no_request(self, cluster: Cluster) -> None:
        with calling(cluster, ingress=cluster.ingress) as load:
            time.sleep(_SETTLE_S)
            cluster.each(lambda workload: workload.roll())
            endings = cluster.endings()
            time.sleep(_SETTLE_S)

        assert len(endings) == 6
        assert_clean(endings)
        assert_unnoticed(cluster, load)
        assert_drained(cluster, endings)

    def test_scaling_up_and_down_fails_no_request(self, cluster: Cluster) -> None:
        with calling(cluster, ingress=cluster.ingress) as load:
            for replicas in (3, 1, 3, 1):
                time.sleep(_SETTLE_S)
                cluster.each(methodcaller("scale", replicas))
            endings = cluster.endings()
            time.sleep(_SETTLE_S)

        assert len(endings) == 3 * 4
        assert_clean(endings)
        assert_unnoticed(cluster, load)
        assert_drained(cluster, endings)

    def test_draining_a_node_with_one_of_each_service_fails_no_request(
        self, cluster: Cluster
    ) -> None:
        with calling(cluster, ingress=cluster.ingress) as load:
            time.sleep(_SETTLE_S)
            cluster.each(lambda workload: workload.evict())
            endings = cluster.endings()
            time.sleep(_SETTLE_S)

        assert len(endings) == 3
        assert_clean(endings)
        assert_unnoticed(cluster, load)
        assert_drained(cluster, endings)


class TestRequestsThatHang:
    def test_hanging_requests_are_cut_short_and_harm_no_others(self, cluster: Cluster) -> None:
        version = stuck.publish(cluster.home)
        token, service = cluster.new_token(), cluster.service_token()
        oldest = {name: workload.pods[0].port for name, workload in cluster.workloads.items()}
        with ThreadPoolExecutor() as threads, calling(cluster, ingress=cluster.ingress) as load:
            hanging = [
                threads.submit(half_a_request, oldest["auth"], "/register"),
                threads.submit(half_a_request, oldest["billing"], "/leases", token=service),
                threads.submit(half_a_request, oldest["inference"], PREDICT, token=token),
                threads.submit(endless_computation, oldest["inference"], version, token=token),
            ]
            time.sleep(_SETTLE_S)
            cluster.each(lambda workload: workload.evict())
            endings = {ending.service: ending for ending in cluster.endings()}
            refused = [hung.result() for hung in hanging]

        assert refused == [503] * 4
        # One thread is still computing; everything else was done.
        assert {name: ending.code for name, ending in endings.items()} == {
            "auth": 0,
            "billing": 0,
            "inference": 1,
        }
        for ending in endings.values():
            assert ending.seconds < cluster.workloads[ending.service].timings.stop_s - 5
        assert endings["inference"].seconds > FINISH_S - 1
        assert cluster.output().count('"request_aborted"') == 4
        assert '"threads_stuck"' in cluster.output()
        assert cluster.usage(token)["requests"] == 0
        assert_unnoticed(cluster, load)
        assert_drained(cluster, list(endings.values()))


def half_a_request(port: int, path: str, *, token: str = "") -> int:
    """Send a request whose body does not end; return the status of the response."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
        link.sendall(head.encode())
        return int(link.recv(4096).split()[1])


def endless_computation(port: int, version: str, *, token: str) -> int:
    """Request a prediction that takes hours; return the status of the response."""
    row = {"name": "features", "datatype": "FP64", "shape": [1, len(WINE)], "data": stuck.ENDLESS}
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v2/models/wine/versions/{version}/infer",
        json={"inputs": [row]},
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=60,
    )
    return answer.status_code
