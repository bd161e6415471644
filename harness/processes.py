"""The three services as separate processes that a test starts, kills and freezes at will."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cli.die_with_parent import die_with_parent
from harness.mariadb import Server
from harness.platform import ROOT, Platform, eventually

SERVICES = ("auth", "billing", "inference")
_LOCAL_PLAN = ROOT / "services" / "billing" / "plans" / "local_plan.json"


class Processes(Platform):
    """A platform without a runner: only the test restarts services.

    Args:
        home: state folder; the model is trained there if it is missing.
        server: the server for the databases of auth and billing.
        environment: of all services, such as `INFERENCE_BILLING_URL`.
    """

    def __init__(
        self, home: Path, server: Server, *, environment: dict[str, str] | None = None
    ) -> None:
        databases = {f"{name}_DATABASE_URL": server.new_database() for name in ("AUTH", "BILLING")}
        plan = {"BILLING_DEFAULT_PLAN": str(_LOCAL_PLAN)}
        super().__init__(home, plan | databases | (environment or {}))
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.prepare()

    def begin(self, *services: str, **environment: str) -> None:
        """Start services and wait until they are ready."""
        for service in services:
            with self.log.open("ab") as output:
                self.children[service] = subprocess.Popen(
                    die_with_parent(sys.executable, "-m", f"services.{service}"),
                    cwd=ROOT,
                    env=self.environment | environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        for service in services:
            eventually(partial(self._ready_or_dead, service))

    def kill(self, service: str) -> None:
        """SIGKILL a service, and wait until it is gone."""
        self.children[service].kill()
        self.children.pop(service).wait()

    def end(self, *services: str) -> None:
        """SIGTERM services, one after the other, and wait until each has finished."""
        for service in services:
            child = self.children.pop(service, None)
            if child is not None:
                child.send_signal(signal.SIGCONT)
                child.terminate()
                try:
                    child.wait(timeout=40)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def _ready_or_dead(self, service: str) -> bool:
        assert self.children[service].poll() is None, self.output()[-4000:]
        return self.is_ready(service)


@contextmanager
def processes(
    home: Path, server: Server, *, environment: dict[str, str] | None = None
) -> Iterator[Processes]:
    """The three services, ready inside the block and gone after it."""
    platform = Processes(home, server, environment=environment)
    try:
        platform.begin(*SERVICES)
        yield platform
    finally:
        platform.end("inference", "billing", "auth")  # inference needs billing to finish
