"""Functions that a child process calls, and that do what an owner's code may do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from registry.records import StoreError

Timed = Callable[[], AbstractContextManager[None]]
Progress = Callable[[str, float], None]


def adds(*, timed: Timed, report_progress: Progress, left: int, right: int) -> int:
    """Print something, report progress and return a sum."""
    with timed():
        sys.stdout.write("noise\n")
    report_progress("adding", 0.5)
    return left + right


def loops(*, timed: Timed, report_progress: Progress) -> None:
    """Never return."""
    with timed():
        while True:
            time.sleep(1)


def is_slow_elsewhere(*, timed: Timed, report_progress: Progress, seconds: float) -> str:
    """Take long only while no code of the owner's runs."""
    with timed():
        pass
    time.sleep(seconds)
    return "done"


def exits(*, timed: Timed, report_progress: Progress) -> None:
    """End the process without a word."""
    with timed():
        os._exit(3)


def crashes(*, timed: Timed, report_progress: Progress) -> None:
    """Crash as a faulty extension module does."""
    with timed():
        os.kill(os.getpid(), signal.SIGSEGV)


def refuses(*, timed: Timed, report_progress: Progress) -> None:
    """Fail in an expected way."""
    raise StoreError("The store is full.")


def is_faulty(*, timed: Timed, report_progress: Progress) -> Any:
    """Fail in an unexpected way."""
    empty: dict[str, Any] = {}
    return empty["missing\nkey"]


def leaves_a_worker(*, timed: Timed, report_progress: Progress, file: Path) -> None:
    """Start a process of its own, write its id to a file, and never return."""
    with timed():
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        file.write_text(str(worker.pid))
        worker.wait()
