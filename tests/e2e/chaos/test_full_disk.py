"""Volumes that are really full: under the journal, and under an SQLite database."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from harness.mariadb import Server
from harness.services import SERVICES, ServiceProcesses
from harness.waiting import eventually
from tests.e2e.chaos.caller import Caller, new_plan

pytestmark = pytest.mark.costly

_VOLUME_BYTES = 4 * 2**20
_AT_MOST = 200
"""Writes until one finds no space: the last page of a file has some left."""


class Volume:
    """A small file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Fill all free space."""
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def empty(self) -> None:
        """Free the space again."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def mounted(folder: Path) -> Iterator[Volume]:
    """Mount a volume on a new folder inside the block."""
    folder.mkdir()
    options = f"size={_VOLUME_BYTES},mode=700"
    result = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tollgate", str(folder)],
        capture_output=True,
        text=True,
    )
    if result.returncode:
        pytest.skip(f"FULL DISK TESTS SKIPPED: no volume can be mounted: {result.stderr.strip()}")
    try:
        yield Volume(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Volume, Volume]]:
    """The volumes of the journal and of the database."""
    if os.geteuid() != 0:
        pytest.skip("FULL DISK TESTS SKIPPED: only root may mount a volume")
    base = tmp_path_factory.mktemp("volumes")
    with mounted(base / "journal") as journal, mounted(base / "database") as database:
        yield journal, database


@pytest.fixture(scope="module")
def platform(
    volumes: tuple[Volume, Volume], new_home: Callable[[], Path], server: Server
) -> Iterator[ServiceProcesses]:
    home = new_home()
    journal, database = volumes
    settings = {
        "INFERENCE_JOURNAL_DIR": str(journal.folder),
        "AUTH_DATABASE_URL": f"sqlite+aiosqlite:///{home / 'auth.db'}",  # already migrated
        "BILLING_DATABASE_URL": f"sqlite+aiosqlite:///{database.folder / 'billing.db'}",
    }
    platform = ServiceProcesses(home, server, environment=settings)
    try:
        platform.begin(*SERVICES)
        yield platform
    finally:
        for volume in volumes:
            volume.empty()
        platform.end("inference", "billing", "auth")


def write_until_refused(write: Callable[[], httpx.Response], *, expected: int) -> httpx.Response:
    """Write until a response has another status than the expected one; return that response."""
    for _ in range(_AT_MOST):
        answer = write()
        if answer.status_code != expected:
            return answer
    raise AssertionError("it never ran out of space")


def test_a_full_volume_under_the_journal_is_an_unbilled_503(
    platform: ServiceProcesses, caller: Caller, volumes: tuple[Volume, Volume]
) -> None:
    journal, _ = volumes
    journal.fill()
    refused = [write_until_refused(caller.predict, expected=200), caller.predict()]
    read = caller.usage()
    journal.empty()

    assert {answer.status_code for answer in refused} == {503}
    assert {answer.json()["type"].rpartition(":")[2] for answer in refused} == {
        "journal_unavailable"
    }
    assert read.status_code == 200
    eventually(lambda: caller.predict().status_code == 200)
    eventually(caller.all_billed)


def test_a_full_volume_under_the_database_is_a_503_and_loses_nothing_acknowledged(
    platform: ServiceProcesses, caller: Caller, volumes: tuple[Volume, Volume]
) -> None:
    _, database = volumes
    acknowledged: set[str] = set()

    with platform.client("billing", platform.admin_token()) as billing:

        def write() -> httpx.Response:
            answer = billing.post("/plans", json=new_plan())
            if answer.status_code == 201:
                acknowledged.add(answer.json()["id"])
            return answer

        database.fill()
        refused = [write_until_refused(write, expected=201), write()]
        read, predicted = caller.usage(), caller.predict()
        database.empty()

        assert {answer.status_code for answer in refused} == {503}
        assert (read.status_code, predicted.status_code) == (200, 200)
        eventually(lambda: write().status_code == 201)
        stored = {plan["id"] for plan in billing.get("/plans").json()["plans"]}
    assert acknowledged <= stored
    eventually(caller.all_billed)
