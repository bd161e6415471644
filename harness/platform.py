"""`tollgate up` on free ports with its own state folder, and no process left behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from cli.local import prepared, state
from harness.clients import PLAIN
from harness.plans import LOCAL_PLAN_FILE
from harness.ports import free_port
from harness.processes import end_of
from harness.programs import ROOT
from harness.waiting import DEADLINE_S, eventually, is_ready


class Platform:
    """The environment of one `tollgate up`, and its processes."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.log = home.with_suffix(".log")
        self.ports = {name: free_port() for name in ("console", "auth", "inference", "billing")}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        clean = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        ports = {f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        self.environment = clean | ports | {"TOLLGATE_HOME": str(home)} | dict(environment or {})
        self.runner: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Create the state that the services need, for a platform without a runner.

        Raises:
            AssertionError: the preparation failed; the message is the end of its log.
        """
        with self.log.open("ab") as output:
            steps = ["cli.local.prepare"]
            if not (self.home / "models").is_dir():
                steps.append("cli.local.sample")
            for step in steps:
                done = subprocess.run(
                    [sys.executable, "-m", step],
                    cwd=ROOT,
                    env=self.environment,
                    stdout=output,
                    stderr=output,
                )
                assert done.returncode == 0, end_of(self.log)
        # The plan that `tollgate up` would choose, so that it has nothing left to prepare.
        plan = {"BILLING_DEFAULT_PLAN": str(LOCAL_PLAN_FILE)}
        prepared.record(self.home, environment=plan | self.environment)

    def start(self) -> None:
        """Start the runner and wait for its greeting."""
        self.launch()
        eventually(self._greeted)

    def launch(self, *options: str, terminal: int | None = None) -> subprocess.Popen[bytes]:
        """Start the runner; its output goes to `log`, or to a terminal's file descriptor."""
        with self.log.open("wb") as output:
            self.runner = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "up", *options],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output if terminal is None else terminal,
                stderr=output if terminal is None else terminal,
                start_new_session=True,
            )
        return self.runner

    def stop(self) -> int:
        """SIGTERM the runner; return its exit code."""
        assert self.runner is not None
        self.runner.send_signal(signal.SIGTERM)
        return self.runner.wait(timeout=DEADLINE_S)

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a `tollgate` command to completion, whether or not the platform is running."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *command],
            cwd=ROOT,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=DEADLINE_S,
            **options,
        )

    def output(self) -> str:
        """Return the output of the runner and its services so far."""
        return self.log.read_text(errors="replace")

    def script(self) -> str:
        """Return the commands that the runner prints for copying."""
        output = self.output()
        return re.split(r"^\{", output[output.index("EMAIL=") :], flags=re.M)[0]

    def pids(self) -> dict[int, str]:
        """Return the command line of every live process of this platform, by pid."""
        variable = f"TOLLGATE_HOME={self.home}".encode()
        commands = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if variable in (folder / "environ").read_bytes().split(b"\0"):
                    commands[int(folder.name)] = (folder / "cmdline").read_text()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return commands

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
        """Return whether a service is ready."""
        return is_ready(self.urls[service])

    def client(self, service: str, token: str | None = None) -> httpx.Client:
        """Return a client of one service."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(
            base_url=self.urls[service],
            headers=headers,
            trust_env=False,
            verify=PLAIN,
            timeout=30,
        )

    def token(self, email: str, password: str) -> str:
        """Sign in; return the token."""
        form = {"grant_type": "password", "username": email, "password": password}
        with self.client("auth") as auth:
            response = auth.post("/token", data=form)
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])

    def register_user(self) -> tuple[str, str]:
        """Register a user; return e-mail address and password."""
        email, password = f"{uuid4().hex}@example.com", uuid4().hex
        with self.client("auth") as auth:
            response = auth.post("/register", json={"email": email, "password": password})
        assert response.status_code == 201, response.text
        return email, password

    def new_token(self) -> str:
        """Register a new user and sign in; return the token."""
        return self.token(*self.register_user())

    def admin_token(self) -> str:
        """Sign in as the administrator of the installation; return the token."""
        return self.token(**state.credentials(self.home)["admin"])

    def service_token(self) -> str:
        """Return a token of the inference service's client."""
        client = state.credentials(self.home)["services"]["inference"]
        with self.client("auth") as auth:
            response = auth.post("/token", data={"grant_type": "client_credentials"} | client)
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])

    def usage(self, token: str) -> dict[str, Any]:
        """Return this month's total usage."""
        with self.client("billing", token) as billing:
            response = billing.get("/usage")
        assert response.status_code == 200, response.text
        total: dict[str, Any] = response.json()["total"]
        return total

    def _greeted(self) -> bool:
        assert self.runner is not None
        assert self.runner.poll() is None, self.output()
        return re.search(r"^curl .*/usage", self.output(), re.MULTILINE) is not None


@contextmanager
def running(home: Path, environment: Mapping[str, str] | None = None) -> Iterator[Platform]:
    """Run a platform that is ready inside the block and completely gone after it."""
    platform = Platform(home, environment)
    try:
        platform.start()
        yield platform
    finally:
        end(platform)


def end(platform: Platform) -> None:
    """Stop the runner if it is running, and make sure that no process is left."""
    if platform.runner is not None and platform.runner.poll() is None:
        platform.stop()
    eventually(lambda: not platform.pids())
