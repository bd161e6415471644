"""Real processes on a real database server, with a fault-injecting proxy before billing."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.faulty_proxy import Proxy
from harness.mariadb import NoServer, Server, do_without, running_server
from harness.ports import free_port
from harness.processes import SERVICES, Processes
from tests.chaos.caller import Caller

JOURNAL_MAX_BYTES = 2**20


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """A database server that tests may freeze, restart and kill."""
    try:
        with running_server() as started:
            yield started
    except NoServer as error:
        do_without(error)


@pytest.fixture(scope="package")
def proxy() -> Iterator[Proxy]:
    """The proxy between inference and billing."""
    with Proxy(port=free_port()) as started:
        yield started


@pytest.fixture(scope="package")
def running(new_home: Callable[[], Path], server: Server, proxy: Proxy) -> Iterator[Processes]:
    settings = {
        "INFERENCE_BILLING_URL": proxy.url,
        "INFERENCE_JOURNAL_MAX_BYTES": str(JOURNAL_MAX_BYTES),
    }
    platform = Processes(new_home(), server, environment=settings)
    proxy.upstream = platform.ports["billing"]
    try:
        platform.begin(*SERVICES)
        yield platform
    except subprocess.CalledProcessError:
        pytest.fail(platform.output())
    finally:
        platform.end("inference", "billing", "auth")


@pytest.fixture
def platform(running: Processes, proxy: Proxy) -> Processes:
    """The platform, with no proxy between its parts."""
    proxy.pass_on()
    return running


@pytest.fixture
def caller(platform: Processes) -> Caller:
    return Caller(platform)
