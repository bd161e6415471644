"""Child processes: started in sessions of their own, awaited, and ended by pid."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cli.die_with_parent import die_with_parent
from harness.programs import ROOT
from harness.waiting import DEADLINE_S, eventually

Process = subprocess.Popen[bytes]


def start_process(
    *command: str,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> Process:
    """Start a command that ends with the calling thread at the latest.

    It has a session of its own, so that a Ctrl-C reaches only the caller. Linux also divides the
    CPU among sessions first: a process that shared its session with a load would be scheduled
    differently.

    Args:
        log: the file to append its output to; by default it shares the caller's output.
        environment: its whole environment; by default the caller's.
    """
    with (log or Path("/dev/null")).open("ab") as file:
        output = file if log else None
        return subprocess.Popen(
            die_with_parent(*command),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def await_process(
    process: Process,
    is_ready: Callable[[], object],
    *,
    log: Path | None = None,
    within_s: float = DEADLINE_S,
    every_s: float = 0.05,
) -> None:
    """Wait until a started process is ready.

    Raises:
        AssertionError: it ended (the message is the end of its log), or it was not ready in time.
    """

    def ready_or_ended() -> object:
        assert process.poll() is None, f"exit code {process.returncode}: {end_of(log)}"
        return is_ready()

    eventually(ready_or_ended, within_s=within_s, every_s=every_s)


def stop_process(process: Process, *, within_s: float = 40) -> int:
    """SIGTERM a process, even a frozen one, and SIGKILL it if it does not end; return its code."""
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    try:
        return process.wait(timeout=within_s)
    except subprocess.TimeoutExpired:
        return kill_process(process)


def kill_process(process: Process) -> int:
    """SIGKILL a process and wait until it is gone; return its exit code."""
    process.kill()
    return process.wait()


@contextmanager
def running_process(
    *command: str,
    is_ready: Callable[[], object],
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> Iterator[Process]:
    """Run a process that is ready inside the block and gone after it.

    Raises:
        AssertionError: it ended, or was not ready in time.
    """
    process = start_process(*command, log=log, environment=environment, folder=folder)
    try:
        await_process(process, is_ready, log=log)
        yield process
    finally:
        stop_process(process)


def end_of(log: Path | None) -> str:
    """Return the last lines of a log; empty without one."""
    return log.read_text(errors="replace")[-4000:] if log else ""
