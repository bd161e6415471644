"""`python -m services.auth` from an operator's point of view."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.ports import free_port
from harness.waiting import eventually, is_ready


def environment(home: Path, **settings: str) -> Mapping[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH",)}
    return {**inherited, "TOLLGATE_HOME": str(home), **settings}


def run(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.auth", *arguments],
        env=environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=60,
    )


@dataclass(frozen=True)
class Served:
    """A state folder in which auth has served, with a passphrase.

    Args:
        exit_code: of the process that served, after SIGTERM.
        second: a process that was started at the same port meanwhile.
    """

    home: Path
    port: str
    exit_code: int
    second: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    home, port = tmp_path_factory.mktemp("auth"), str(free_port())
    settings = {"AUTH_PORT": port, "AUTH_PASSPHRASE": "correct horse"}
    assert run(home, "migrate").returncode == 0
    assert run(home, "migrate").returncode == 0
    with subprocess.Popen(
        [sys.executable, "-m", "services.auth"],
        env=environment(home, **settings),
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            eventually(lambda: is_ready(f"http://127.0.0.1:{port}"))
            second = run(home, **settings)
            process.send_signal(signal.SIGTERM)
            return Served(home, port, process.wait(60), second)
        finally:
            process.kill()


def test_it_migrates_serves_and_stops_cleanly(served: Served) -> None:
    assert served.exit_code == 0


def test_a_port_in_use_is_explained_on_one_line(served: Served) -> None:
    where = f"127.0.0.1:{served.port}"

    assert served.second.returncode == 2
    assert served.second.stderr.startswith(f"error: AUTH_PORT: cannot listen on {where}: ")
    assert served.second.stderr.count("\n") == 1


FAILED_STARTS: list[tuple[list[str], dict[str, str], str]] = [
    (["sevre"], {}, "usage"),
    ([], {"AUTH_REGISTRATION": "closed"}, "AUTH_REGISTRATION"),
    ([], {"TOLLGATE_HOME": "/dev/null/state"}, "AUTH_DATABASE_URL"),
    (["migrate"], {"TOLLGATE_HOME": "/dev/null/state"}, "AUTH_DATABASE_URL"),
    (["migrate"], {"TOLLGATE_HOME": "/proc/1"}, "AUTH_DATABASE_URL"),
    ([], {"AUTH_SIGNING_KEYS": "/dev/null/keys"}, "AUTH_SIGNING_KEYS"),
    (
        ["migrate"],
        {"AUTH_DATABASE_URL": "mysql+aiomysql://user:hunter2@127.0.0.1:1/auth"},
        "AUTH_DATABASE_URL",
    ),
]
"""Arguments, settings, and what the error names."""

START_EACH = """
import json, os, sys
from services.auth.__main__ import main  # once, not in every child

for number, (arguments, settings, _) in enumerate(json.loads(sys.argv[1])):
    if os.fork() == 0:
        os.dup2(os.open(f"{number}.stderr", os.O_WRONLY | os.O_CREAT), 2)
        os.environ.update(settings)
        sys.exit(main(arguments))
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def failed_starts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """Return the exit code and the errors of each failed start."""
    folder = tmp_path_factory.mktemp("failed")
    settings = environment(folder, AUTH_PORT=str(free_port()))
    command = [sys.executable, "-c", START_EACH, json.dumps(FAILED_STARTS)]
    done = subprocess.run(
        command, cwd=folder, env=settings, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    codes = [int(line) for line in done.stdout.split()]
    return [(code, (folder / f"{n}.stderr").read_text()) for n, code in enumerate(codes)]


@pytest.mark.costly
@pytest.mark.parametrize("number", range(len(FAILED_STARTS)))
def test_a_failed_start_is_explained_on_one_line(
    failed_starts: list[tuple[int, str]], number: int
) -> None:
    code, errors = failed_starts[number]
    *_, variable = FAILED_STARTS[number]

    assert code == 2
    assert errors.startswith(f"error: {variable}")
    assert errors.count("\n") == 1
    assert "hunter2" not in errors


@pytest.mark.costly
def test_a_wrong_passphrase_is_explained_on_one_line(served: Served) -> None:
    refused = run(served.home, AUTH_PORT=served.port, AUTH_PASSPHRASE="battery staple")

    assert refused.returncode == 2
    assert refused.stderr == (
        "error: AUTH_PASSPHRASE: The passphrase does not decrypt the keys in the database.\n"
    )
