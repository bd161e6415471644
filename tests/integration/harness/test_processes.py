"""Processes that the harness starts end with it, whatever state they are in."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.ports import free_port, is_listening
from harness.processes import await_process, running_process, start_process, stop_process
from harness.programs import ROOT
from harness.waiting import eventually

DEAF = (
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
)


def test_a_process_that_ends_before_it_is_ready_is_reported_with_its_log(tmp_path: Path) -> None:
    process = start_process(
        sys.executable, "-c", "import sys; sys.exit('no such port')", log=tmp_path / "log"
    )

    with pytest.raises(AssertionError, match="exit code 1: no such port"):
        await_process(process, lambda: False, log=tmp_path / "log")


def test_waiting_for_a_process_that_never_becomes_ready_ends() -> None:
    process = start_process("sleep", "60")

    with pytest.raises(AssertionError, match=r"not within 0\.1 s"):
        await_process(process, lambda: False, within_s=0.1)

    assert stop_process(process) == -signal.SIGTERM


def test_a_process_is_ready_inside_the_block_and_gone_after_it() -> None:
    port = free_port()
    command = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port))

    with running_process(*command, is_ready=lambda: is_listening(port), log=Path("/dev/null")):
        assert is_listening(port)

    assert not is_listening(port)


def test_no_two_processes_get_the_same_port() -> None:
    port = free_port()
    script = f"from harness import ports; print(ports._reserve({port}))"

    other = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert other.stdout == "False\n"


def test_a_frozen_process_is_stopped() -> None:
    process = start_process("sleep", "60")
    process.send_signal(signal.SIGSTOP)

    assert stop_process(process) == -signal.SIGTERM


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start_process(sys.executable, "-c", DEAF, log=log)
    eventually(lambda: log.read_text())

    assert stop_process(process, within_s=0.1) == -signal.SIGKILL
