"""docker-compose.yml with the test's own project name, ports and passwords."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from harness.platform import Platform
from harness.programs import ROOT, NotInstalled

IMAGES = ("auth", "billing", "console", "inference", "trainer")
_BUILD_DEADLINE_S = 1800
_UP_DEADLINE_S = 600
_DEADLINE_S = 120


def docker(*arguments: str, timeout_s: float = _DEADLINE_S) -> str:
    """Run docker; return its output.

    Raises:
        AssertionError: it failed; the message is docker's.
    """
    command = [os.environ.get("DOCKER", "docker"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    assert result.returncode == 0, f"{command}: {result.stdout[-4000:]}{result.stderr[-4000:]}"
    return result.stdout


def find_compose() -> list[str]:
    """Return the compose command: docker's plugin, or else docker-compose 1.29.

    Raises:
        NotInstalled: there is neither, or no engine for them.
    """
    program = os.environ.get("DOCKER", "docker")
    if not (found := shutil.which(program)) or not _works(found, "info"):
        raise NotInstalled(f"no Docker engine answers to `{program}`")
    if _works(found, "compose", "version"):
        return [found, "compose"]
    if standalone := shutil.which("docker-compose"):
        return [standalone]
    raise NotInstalled("docker compose is not installed")


def _works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=_DEADLINE_S).returncode == 0


def build_images(*, tag: str) -> None:
    """Run `make images` in this checkout, with BASE and BUILD_FLAGS of this shell."""
    arguments = [
        f"{name}={os.environ[name]}" for name in ("BASE", "BUILD_FLAGS") if name in os.environ
    ]
    command = ["make", "--no-print-directory", "images", f"TAG={tag}", *arguments]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=_BUILD_DEADLINE_S
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]


class Project(Platform):
    """The services of docker-compose.yml, at free ports of this machine.

    Args:
        folder: the folder for .env.
        tag: tag of the images to run.
    """

    def __init__(self, folder: Path, compose: list[str], *, tag: str) -> None:
        super().__init__(folder / "home")
        self.name = f"tollgate-test-{uuid4().hex[:8]}"
        script = ROOT / "scripts" / "compose_env.py"
        subprocess.run([sys.executable, script], cwd=folder, check=True, capture_output=True)
        ports = {f"{name.upper()}_PORT": port for name, port in self.ports.items()}
        variables = ports | {
            "TAG": tag,
            "CONSOLE_PUBLIC_URL": self.urls["console"],
            "AUTH_ISSUER": self.urls["auth"],
            "INFERENCE_PUBLIC_URL": self.urls["inference"],
            "BILLING_PUBLIC_URL": self.urls["billing"],
        }
        with (folder / ".env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in variables.items())
        self.settings = dict(
            line.split("=", 1)
            for line in (folder / ".env").read_text().splitlines()
            if not line.startswith("#")
        )
        # The project's folder is the checkout, so that the mounts in the file exist.
        where = ["--project-name", self.name, "--project-directory", str(ROOT)]
        files = ["--file", str(ROOT / "docker-compose.yml"), "--env-file", str(folder / ".env")]
        self._compose = [*compose, *where, *files]

    def compose(self, *arguments: str, timeout_s: float = _DEADLINE_S) -> str:
        """Run a command on the project; return its output.

        Raises:
            AssertionError: it failed; the message is the command's.
        """
        result = subprocess.run(
            [*self._compose, *arguments], capture_output=True, text=True, timeout=timeout_s
        )
        assert result.returncode == 0, (
            f"{arguments}: {result.stdout[-4000:]}{result.stderr[-4000:]}"
        )
        return result.stdout

    def up(self) -> None:
        """Start everything in order; return when inference has been started."""
        try:
            self.compose("up", "--detach", timeout_s=_UP_DEADLINE_S)
        except AssertionError as error:
            logs = self.compose("logs", "--no-color", "--tail", "30")
            raise AssertionError(f"{error}\n{logs}") from None

    def inspect(self, service: str) -> dict[str, Any]:
        """Return the engine's description of a service's container."""
        container = self.compose("ps", "--quiet", service).strip()
        found: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return found


@contextmanager
def running_project(folder: Path) -> Iterator[Project]:
    """Build the images and bring the project up; remove all of it after the block.

    Raises:
        NotInstalled: there is no Docker engine here, or no docker compose.
    """
    compose = find_compose()
    tag = f"test-{uuid4().hex[:8]}"
    try:
        build_images(tag=tag)
        project = Project(folder, compose, tag=tag)
        try:
            project.up()
            yield project
        finally:
            project.compose("down", "--volumes", "--remove-orphans")
    finally:
        images = [f"tollgate/tollgate-{name}:{tag}" for name in IMAGES]
        subprocess.run(
            [os.environ.get("DOCKER", "docker"), "image", "rm", *images], capture_output=True
        )
