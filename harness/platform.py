"""Run `tollgate up` for a test: free ports, its own state folder, no process left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from harness.ports import free_port

ROOT = Path(__file__).parents[1]
WINE = [14.23, 1.71, 2.43, 15.6, 127, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065]
PREDICT = "/v1/models/wine:predict"
_DEADLINE_S = 60


def eventually(condition: Callable[[], Any], *, within_s: float = _DEADLINE_S) -> Any:
    """Poll until the condition is truthy, and return its value.

    Raises:
        AssertionError: it never was.
    """
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.05)
    return found


class Platform:
    """The environment of one `tollgate up`, and its processes."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.log = home.with_suffix(".log")
        self.ports = {name: free_port() for name in ("auth", "inference", "billing")}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        clean = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        ports = {f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        self.environment = clean | ports | {"TOLLGATE_HOME": str(home)} | dict(environment or {})
        self.runner: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Create what the services need, for a platform without a runner."""
        with self.log.open("ab") as output:
            subprocess.run(
                [sys.executable, "-m", "cli.local.prepare"],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=output,
                check=True,
            )

    def start(self) -> None:
        """Start the runner and wait for its greeting."""
        self.launch()
        eventually(self._greeted)

    def launch(self, *options: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
        """Start the runner; its output goes to `log`, unless `stderr` is another file."""
        with self.log.open("wb") as output:
            self.runner = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "up", *options],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output if stderr is None else stderr,
                start_new_session=True,
            )
        return self.runner

    def stop(self) -> int:
        """SIGTERM the runner; return its exit code."""
        assert self.runner is not None
        self.runner.send_signal(signal.SIGTERM)
        return self.runner.wait(timeout=_DEADLINE_S)

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a `tollgate` command to its end, beside whatever is running."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *command],
            cwd=ROOT,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=_DEADLINE_S,
            **options,
        )

    def output(self) -> str:
        """Return what the runner and its services have written so far."""
        return self.log.read_text(errors="replace")

    def script(self) -> str:
        """Return the commands that the runner prints for copying."""
        output = self.output()
        return re.split(r"^\{", output[output.index("EMAIL=") :], flags=re.M)[0]

    def pids(self) -> dict[int, str]:
        """Return every live process of this platform with its command line."""
        wanted = f"TOLLGATE_HOME={self.home}".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def pid(self, service: str) -> int | None:
        """Return the process of a service, if it is running."""
        module = f"services.{service}\0"
        return next((pid for pid, command in self.pids().items() if module in command), None)

    def kill(self, service: str) -> None:
        """SIGKILL a service."""
        pid = self.pid(service)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def is_ready(self, service: str) -> bool:
        try:
            return httpx.get(f"{self.urls[service]}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def client(self, service: str, token: str | None = None) -> httpx.Client:
        """Return a client of one service."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(
            base_url=self.urls[service], headers=headers, trust_env=False, timeout=30
        )

    def token(self, email: str, password: str) -> str:
        """Log in; return the token."""
        form = {"grant_type": "password", "username": email, "password": password}
        with self.client("auth") as auth:
            answer = auth.post("/token", data=form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def new_account(self) -> tuple[str, str]:
        """Register a user; return e-mail address and password."""
        email, password = f"{uuid4().hex}@example.com", uuid4().hex
        with self.client("auth") as auth:
            answer = auth.post("/register", json={"email": email, "password": password})
        assert answer.status_code == 201, answer.text
        return email, password

    def new_token(self) -> str:
        """Register a new account and log in to it."""
        return self.token(*self.new_account())

    def usage(self, token: str) -> dict[str, Any]:
        """Return the total of this month."""
        with self.client("billing", token) as billing:
            answer = billing.get("/usage")
        assert answer.status_code == 200, answer.text
        total: dict[str, Any] = answer.json()["total"]
        return total

    def _greeted(self) -> bool:
        assert self.runner is not None
        assert self.runner.poll() is None, self.output()
        return re.search(r"^curl .*/usage", self.output(), re.MULTILINE) is not None


@contextmanager
def running(home: Path, environment: Mapping[str, str] | None = None) -> Iterator[Platform]:
    """A platform that is ready inside the block and completely gone after it."""
    platform = Platform(home, environment)
    try:
        platform.start()
        yield platform
    finally:
        end(platform)


def end(platform: Platform) -> None:
    """Stop the runner if it is running, and make sure that nothing is left."""
    if platform.runner is not None and platform.runner.poll() is None:
        platform.stop()
    eventually(lambda: not platform.pids())
