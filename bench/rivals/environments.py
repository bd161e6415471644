"""The rivals' environments: `.bench/<folder>`, built by uv, and kept between runs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness.programs import ROOT

APPS = Path(__file__).parent
ENVIRONMENTS = ROOT / ".bench"
BUILD_TIMEOUT_S = 900


class NotBuilt(Exception):
    """A rival's environment cannot be built; the message is one line that says why."""


def python_of(folder: str) -> Path:
    """Return the interpreter of a rival's environment, built first unless it is up to date.

    Raises:
        NotBuilt: uv is missing, or its installation failed.
    """
    environment = ENVIRONMENTS / folder
    requirements = APPS / folder / "requirements.txt"
    python, stamp = environment / "bin/python", environment / "bench.stamp"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if not (python.exists() and stamp.exists() and stamp.read_text() == digest):
        shutil.rmtree(environment, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(environment))
        _uv("pip", "install", "--python", str(python), "--requirements", str(requirements))
        stamp.write_text(digest)
    return python


def installed_versions(folder: str) -> dict[str, str]:
    """Return the version of every package in a built environment, by name.

    Raises:
        NotBuilt: uv cannot read the environment.
    """
    python = str(ENVIRONMENTS / folder / "bin/python")
    listed = _uv("pip", "list", "--python", python, "--format", "json")
    return {package["name"]: package["version"] for package in json.loads(listed)}


def _uv(*arguments: str) -> str:
    """Run uv with pip's settings, and return its output."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        raise NotBuilt("uv is not installed")
    try:
        finished = subprocess.run(
            [uv, *arguments, "--quiet"],
            env=os.environ | _pip_settings(),
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise NotBuilt(f"uv took longer than {BUILD_TIMEOUT_S} s") from error
    if finished.returncode:
        raise NotBuilt(" ".join(finished.stderr.split())[:200])
    return finished.stdout


def _pip_settings() -> dict[str, str]:
    """Return pip's settings as uv's, as `make install` does."""
    code = "import json, install; print(json.dumps(install.uv_settings()))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    settings: dict[str, str] = json.loads(found.stdout)
    return settings
