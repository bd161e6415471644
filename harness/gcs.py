"""A private GCS emulator: fake-gcs-server in memory, on a free loopback port.

It honours `ifGenerationMatch=0`, even under concurrency, and keeps the generations of objects in a
bucket with versioning. It implements neither IAM nor retention.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import httpx
import pytest

from cli.die_with_parent import die_with_parent
from harness.ports import free_port

ROOT = Path(__file__).parents[1]
_START_DEADLINE_S = 30


class NoEmulator(Exception):
    """fake-gcs-server is not installed on this machine."""


def do_without(error: NoEmulator) -> NoReturn:
    """Skip the test that needs the emulator; under CI, where nothing is skipped, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{error}, and under CI nothing is skipped")
    pytest.skip(f"GCS TESTS SKIPPED: {error}")


class Emulator:
    """A running emulator; set STORAGE_EMULATOR_HOST to its `url`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def new_bucket(self, *, versioning: bool = True) -> str:
        """Return the `gs://` URL of a new, empty bucket."""
        name = f"test-{uuid4().hex}"
        answer = httpx.post(
            f"{self.url}/storage/v1/b",
            json={"name": name, "versioning": {"enabled": versioning}},
            trust_env=False,
        )
        answer.raise_for_status()
        return f"gs://{name}"


@contextmanager
def running_emulator() -> Iterator[Emulator]:
    """Start an emulator, and stop it by its own pid at the end of the block.

    Raises:
        NoEmulator: fake-gcs-server is not installed on this machine.
    """
    emulator = Emulator(free_port())
    command = [_program(), "-backend", "memory", "-scheme", "http", "-log-level", "error"]
    process = subprocess.Popen(
        die_with_parent(*command, "-host", "127.0.0.1", "-port", str(emulator.port)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _START_DEADLINE_S
        while not _answers(emulator):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("fake-gcs-server does not start")
            time.sleep(0.02)
        yield emulator
    finally:
        process.terminate()
        process.wait()


def _program() -> str:
    found = shutil.which("fake-gcs-server", path=f"{ROOT / '.tools/bin'}:{os.environ['PATH']}")
    if found is None:
        raise NoEmulator("fake-gcs-server is not installed; scripts/go-tools.sh builds it")
    return found


def _answers(emulator: Emulator) -> bool:
    try:
        return httpx.get(f"{emulator.url}/storage/v1/b", trust_env=False).is_success
    except httpx.TransportError:
        return False
