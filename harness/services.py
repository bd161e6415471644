"""The three services as separate processes, which tests can start, kill and freeze."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harness.mariadb import ExternalServer, Server
from harness.plans import LOCAL_PLAN_FILE
from harness.platform import Platform
from harness.processes import Process, await_process, kill_process, start_process, stop_process

SERVICES = ("auth", "billing", "inference")
STOP_ORDER = ("inference", "billing", "auth")
"""Inference needs billing to finish."""


class ServiceProcesses(Platform):
    """A platform without a runner: services restart only when the caller starts them.

    Args:
        home: state folder; the model is trained there if it is missing.
        server: the server for the databases of auth and billing.
        environment: variables of all services, such as `INFERENCE_BILLING_URL`.
    """

    def __init__(
        self, home: Path, server: Server, *, environment: dict[str, str] | None = None
    ) -> None:
        super().__init__(home, production_settings(server) | (environment or {}))
        self.children: dict[str, Process] = {}
        self.prepare()

    def begin(self, *services: str, **environment: str) -> None:
        """Start services and wait until they are ready."""
        for service in services:
            self.children[service] = start_service(
                service, environment=self.environment | environment, log=self.log
            )
        for service in services:
            is_ready = partial(self.is_ready, service)
            await_process(self.children[service], is_ready, log=self.log)

    def kill(self, service: str) -> None:
        """SIGKILL a service, and wait until it is gone."""
        kill_process(self.children.pop(service))

    def end(self, *services: str) -> None:
        """SIGTERM services, one after the other, and wait until each has finished."""
        for service in services:
            child = self.children.pop(service, None)
            if child is not None:
                stop_process(child)


@contextmanager
def running_services(
    home: Path, server: Server, *, environment: dict[str, str] | None = None
) -> Iterator[ServiceProcesses]:
    """Run the three services, ready inside the block and gone after it."""
    with new_services(home, server, environment=environment) as platform:
        platform.begin(*SERVICES)
        yield platform


@contextmanager
def new_services(
    home: Path, server: Server, *, environment: dict[str, str] | None = None
) -> Iterator[ServiceProcesses]:
    """Prepare a platform without running services; stop those that run after the block."""
    platform = ServiceProcesses(home, server, environment=environment)
    try:
        yield platform
    finally:
        platform.end(*STOP_ORDER)


def production_settings(server: ExternalServer | Server) -> dict[str, str]:
    """Return settings with a database for auth and for billing, and the local plan."""
    return {
        "AUTH_DATABASE_URL": server.new_database(),
        "BILLING_DATABASE_URL": server.new_database(),
        "BILLING_DEFAULT_PLAN": str(LOCAL_PLAN_FILE),
    }


def start_service(service: str, *, environment: Mapping[str, str], log: Path | None) -> Process:
    """Start one process of a service."""
    command = (sys.executable, "-m", f"services.{service}")
    return start_process(*command, environment=environment, log=log)
