"""Two pods of each service behind a balancer, on one database server."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.mariadb import ExternalServer, Server
from harness.platform import Platform
from harness.ports import free_port
from harness.services import SERVICES, STOP_ORDER, production_settings
from tests.e2e.rolling.balancer import running_balancer
from tests.e2e.rolling.pods import Ending, Workload, run_concurrently
from tests.e2e.rolling.timings import chart_timings


class Cluster(Platform):
    """The services as callers see them; `urls` and `ingress` are the balancer's."""

    def __init__(self, home: Path, server: ExternalServer | Server, stack: ExitStack) -> None:
        super().__init__(home, production_settings(server))
        self.environment["AUTH_ISSUER"] = self.urls["auth"]
        self.prepare()
        # A socket's path is limited to about 100 characters, too few for pytest's deep folders.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-lb-")))
        ingress = free_port()
        self.ingress = f"http://127.0.0.1:{ingress}"
        timings = {service: chart_timings(service) for service in SERVICES}
        balancer = stack.enter_context(
            running_balancer(
                folder, services=self.ports, ingress=ingress, timings=timings["inference"]
            )
        )
        self.workloads = {
            service: Workload(
                service, balancer, timings[service], home.parent, self.environment, self.log
            )
            for service in SERVICES
        }

    def each(self, action: Callable[[Workload], None]) -> None:
        """Run an action on all three services at the same time."""
        run_concurrently(*(lambda w=workload: action(w) for workload in self.workloads.values()))

    def endings(self) -> list[Ending]:
        """Wait for the pods stopped since the last call; return how they ended."""
        return [ending for each in self.workloads.values() for ending in each.endings()]

    def close(self) -> None:
        """Stop all pods."""
        for service in STOP_ORDER:
            self.workloads[service].close()


@pytest.fixture(scope="package")
def running(
    new_home: Callable[[], Path], database_server: Callable[[], ExternalServer | Server]
) -> Iterator[Cluster]:
    with ExitStack() as stack:
        cluster = Cluster(new_home(), database_server(), stack)
        stack.callback(cluster.close)
        cluster.each(lambda workload: workload.scale(2))
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """The cluster, with two pods of each service."""
    running.each(lambda workload: workload.scale(2))
    running.endings()
    return running
