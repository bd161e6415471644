"""Shared fixtures: empty databases and stores of either kind, and a prepared state folder."""

import fcntl
import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
import structlog
from hypothesis import HealthCheck, settings

from harness.gcs import Emulator, running_emulator
from harness.mariadb import ExternalServer, Server, any_server
from harness.memory import folder_for_sqlite
from harness.platform import Platform
from harness.programs import NotInstalled, find_program

Once = Callable[[str, Callable[[Path], object]], Path]

JAVA_CLIENT = Path(__file__).parent / "integration/common/Post.java"

gc.disable()  # until all tests are collected, which takes a third less time
# As for trainings, but before any module can load OpenMP, and for services with pickled models too.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-database",
        action="store_true",
        help="run tests marked any_database on every kind of database, not on SQLite only",
    )
    parser.addoption("--costly", action="store_true", help="run tests marked costly, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out costly tests of a whole run, and repetitions on another kind of database."""
    paths_are_named = config.args_source is pytest.Config.ArgsSource.ARGS
    without_costly = not (paths_are_named or config.getoption("--costly"))
    once = not config.getoption("--every-database")

    def is_left_out(item: pytest.Item) -> bool:
        is_costly = item.get_closest_marker("costly") is not None
        return (without_costly and is_costly) or (once and _repeats_on_mysql(item))

    config.hook.pytest_deselected(items=[item for item in items if is_left_out(item)])
    items[:] = [item for item in items if not is_left_out(item)]


def _repeats_on_mysql(item: pytest.Item) -> bool:
    parameters = getattr(item, "callspec", None)
    is_on_mysql = parameters is not None and parameters.params.get("database_kind") == "mysql"
    is_portable = item.get_closest_marker("any_database") is not None
    return is_on_mysql and is_portable and item.get_closest_marker("every_database") is None


def pytest_collection_finish() -> None:
    """Leave what was collected, which lasts, out of every later search for garbage."""
    gc.freeze()
    gc.enable()


# By default structlog draws a traceback with all local values, which takes seconds.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

# Property tests try a few examples by default, the same in every run, so that a run shows what a
# change has broken. `--hypothesis-profile thorough` looks for more, at random. On a busy machine,
# "too slow" says nothing about a test.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", patient, max_examples=30, derandomize=True, database=None)
settings.register_profile("thorough", patient, max_examples=500)
settings.load_profile("quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Skip a test whose program is not installed; under CI, where nothing is skipped, fail it."""
    try:
        return (yield)
    except NotInstalled as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


pytest_runtest_call = pytest_runtest_setup


@pytest.fixture(scope="session", params=["sqlite", "mysql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Runs a test once per kind of database."""
    return cast(str, request.param)


@pytest.fixture(scope="session")
def new_database_url(
    database_server: Callable[[], ExternalServer | Server],
) -> Iterator[Callable[[str], str]]:
    """Return the URL of a new, empty database: `new_database_url("sqlite" | "mysql")`."""
    with folder_for_sqlite() as folder:

        def new(kind: str) -> str:
            if kind == "mysql":
                return database_server().new_database()
            return f"sqlite+aiosqlite:///{folder / uuid4().hex}.db"

        yield new


@pytest.fixture(scope="session")
def database_server() -> Iterator[Callable[[], ExternalServer | Server]]:
    """The worker's MariaDB or MySQL server, started on first use."""
    with ExitStack() as stack:
        started: list[ExternalServer | Server] = []

        def server() -> ExternalServer | Server:
            if not started:
                started.append(stack.enter_context(any_server()))
            return started[0]

        yield server


@pytest.fixture(scope="session")
def gcs() -> Iterator[Emulator]:
    """The worker's GCS emulator."""
    with running_emulator() as emulator:
        yield emulator


@pytest.fixture
def bucket_url(gcs: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the `gs://` URL of a new, empty bucket, valid until the test ends."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    return gcs.new_bucket()


@pytest.fixture(params=["file", "gs"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store; runs a test once per kind, a folder and a bucket."""
    if request.param == "file":
        return f"file://{tmp_path}/models"
    return f"{request.getfixturevalue('bucket_url')}/models"


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return a folder that whichever worker needs it first fills: `once(name, fill)`.

    The others wait for it. All of them read it and none writes to it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def find(name: str, fill: Callable[[Path], object]) -> Path:
        folder = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                unfinished = Path(tempfile.mkdtemp(prefix=name, dir=shared))
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return find


@pytest.fixture(scope="session")
def trained_home(once: Once) -> Path:
    """Return a state folder as after a first start."""
    return once("trained", lambda home: Platform(home).prepare())


@pytest.fixture(scope="session")
def new_home(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return a prepared state folder that nothing else uses: `new_home()`."""

    def copy() -> Path:
        return Path(shutil.copytree(trained_home, tmp_path_factory.mktemp("up") / "home"))

    return copy


@pytest.fixture(scope="session")
def java_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a Java client, compiled once: `[*java_client, url, body, times, token]`."""
    classes = tmp_path_factory.mktemp("java")
    compiler = [find_program("javac"), "-d", str(classes), str(JAVA_CLIENT)]
    subprocess.run(compiler, check=True, timeout=120)
    # These options make a program that runs for a moment start in half the time.
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
    return [find_program("java"), *quick, "-cp", str(classes), JAVA_CLIENT.stem]
