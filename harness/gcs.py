"""A private GCS emulator: fake-gcs-server in memory, on a free loopback port.

It honours `ifGenerationMatch=0`, even under concurrency, and keeps the generations of objects in a
bucket with versioning. It implements neither IAM nor retention.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx

from harness.clients import PLAIN
from harness.ports import free_port
from harness.processes import running_process
from harness.programs import find_program
from harness.waiting import is_answering


class Emulator:
    """A running emulator; set STORAGE_EMULATOR_HOST to its `url`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def new_bucket(self, *, versioning: bool = True) -> str:
        """Return the `gs://` URL of a new, empty bucket."""
        name = f"test-{uuid4().hex}"
        response = httpx.post(
            f"{self.url}/storage/v1/b",
            json={"name": name, "versioning": {"enabled": versioning}},
            trust_env=False,
            verify=PLAIN,
        )
        response.raise_for_status()
        return f"gs://{name}"


@contextmanager
def running_emulator() -> Iterator[Emulator]:
    """Run an emulator inside the block.

    Raises:
        NotInstalled: fake-gcs-server is not installed on this machine.
    """
    emulator = Emulator(free_port())
    program = find_program("fake-gcs-server", advice="scripts/go-tools.sh builds it")
    command = [program, "-backend", "memory", "-scheme", "http", "-log-level", "error"]
    with running_process(
        *(*command, "-host", "127.0.0.1", "-port", str(emulator.port)),
        is_ready=lambda: is_answering(f"{emulator.url}/storage/v1/b"),
        log=Path(os.devnull),
    ):
        yield emulator
