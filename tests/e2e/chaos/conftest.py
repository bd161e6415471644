"""Real processes on a real database server, with a fault-injecting proxy before billing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.faulty_proxy import Proxy
from harness.mariadb import Server, running_server
from harness.ports import free_port
from harness.services import SERVICES, ServiceProcesses, new_services
from tests.e2e.chaos.caller import Caller

JOURNAL_MAX_BYTES = 2**20


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """A database server that tests may freeze, restart and kill."""
    with running_server() as started:
        yield started


@pytest.fixture(scope="package")
def proxy() -> Iterator[Proxy]:
    """The proxy between inference and billing."""
    with Proxy(port=free_port()) as started:
        yield started


@pytest.fixture(scope="package")
def running(
    new_home: Callable[[], Path], server: Server, proxy: Proxy
) -> Iterator[ServiceProcesses]:
    settings = {
        "INFERENCE_BILLING_URL": proxy.url,
        "INFERENCE_JOURNAL_MAX_BYTES": str(JOURNAL_MAX_BYTES),
    }
    with new_services(new_home(), server, environment=settings) as platform:
        proxy.upstream = platform.ports["billing"]
        platform.begin(*SERVICES)
        yield platform


@pytest.fixture
def platform(running: ServiceProcesses, proxy: Proxy) -> ServiceProcesses:
    """The platform, with the proxy forwarding everything."""
    proxy.pass_on()
    return running


@pytest.fixture
def caller(platform: ServiceProcesses) -> Caller:
    return Caller(platform)
