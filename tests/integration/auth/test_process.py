"""`python -m services.auth` from an operator's point of view."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
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


def test_it_migrates_serves_and_stops_cleanly(tmp_path: Path) -> None:
    port = free_port()
    assert run(tmp_path, "migrate").returncode == 0
    assert run(tmp_path, "migrate").returncode == 0

    with subprocess.Popen(
        [sys.executable, "-m", "services.auth"],
        env=environment(tmp_path, AUTH_PORT=str(port)),
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            eventually(lambda: is_ready(f"http://127.0.0.1:{port}"))
            second = run(tmp_path, AUTH_PORT=str(port))
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()

    assert process.returncode == 0
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: AUTH_PORT: cannot listen on 127.0.0.1:{port}: ")
    assert second.stderr.count("\n") == 1


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


def test_a_wrong_passphrase_is_explained_on_one_line(tmp_path: Path) -> None:
    port = free_port()
    assert run(tmp_path, "migrate").returncode == 0
    with subprocess.Popen(
        [sys.executable, "-m", "services.auth"],
        env=environment(tmp_path, AUTH_PORT=str(port), AUTH_PASSPHRASE="correct horse"),
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            eventually(lambda: is_ready(f"http://127.0.0.1:{port}"))
        finally:
            process.terminate()
            process.wait(60)

    refused = run(tmp_path, AUTH_PORT=str(port), AUTH_PASSPHRASE="battery staple")

    assert refused.returncode == 2
    assert refused.stderr == (
        "error: AUTH_PASSPHRASE: The passphrase does not decrypt the keys in the database.\n"
    )
