"""`python -m services.auth` from an operator's point of view."""

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


@pytest.mark.parametrize(
    ("arguments", "settings", "variable"),
    [
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
    ],
)
def test_a_failed_start_is_explained_on_one_line(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], variable: str
) -> None:
    result = run(tmp_path, *arguments, **({"AUTH_PORT": str(free_port())} | settings))

    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {variable}")
    assert result.stderr.count("\n") == 1
    assert "hunter2" not in result.stderr


def test_a_wrong_passphrase_is_explained_on_one_line(served: Served) -> None:
    refused = run(served.home, AUTH_PORT=served.port, AUTH_PASSPHRASE="battery staple")

    assert refused.returncode == 2
    assert refused.stderr == (
        "error: AUTH_PASSPHRASE: The passphrase does not decrypt the keys in the database.\n"
    )
