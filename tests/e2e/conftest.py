"""Real processes through the real entry points. The sample model is trained once per run."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.platform import ROOT, Platform, running


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder as a first start leaves it, made by whichever worker comes first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home = shared / "trained"
    with (shared / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "models").exists():
            home.mkdir(exist_ok=True)
            subprocess.run(
                [sys.executable, "-m", "cli.prepare"],
                cwd=ROOT,
                env=Platform(home).environment,
                check=True,
            )
    return home


@pytest.fixture(scope="session")
def new_home(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """`new_home()` is a prepared state folder that nothing else uses."""

    def copy() -> Path:
        return Path(shutil.copytree(trained_home, tmp_path_factory.mktemp("up") / "home"))

    return copy


@pytest.fixture(scope="package")
def platform(new_home: Callable[[], Path]) -> Iterator[Platform]:
    """A running platform for tests that leave it running; on SQLite."""
    with running(new_home()) as started:
        yield started
