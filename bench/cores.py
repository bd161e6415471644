"""One core for the measured server, another for the load and for the rest of the platform."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
_CAN_PIN = len(_CORES) > 1 and shutil.which("taskset") is not None


def describe() -> str:
    """Return a phrase that says which core runs what."""
    if not _CAN_PIN:
        return "not pinned to cores (that needs taskset and two cores)"
    return f"server on CPU {_CORES[0]}, load and the rest of the platform on CPU {_CORES[1]}"


def on_server_core(*command: str) -> tuple[str, ...]:
    """Return the command that runs `command`, and all its processes, on the server's core."""
    return ("taskset", "-c", str(_CORES[0]), *command) if _CAN_PIN else command


@contextmanager
def beside_the_server() -> Iterator[None]:
    """Run this thread, and the processes it starts, on the other core during the block."""
    if not _CAN_PIN:
        yield
        return
    os.sched_setaffinity(0, {_CORES[1]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, _CORES)


def count() -> int:
    """Return the number of cores that this process may use."""
    return len(_CORES) or os.cpu_count() or 1
