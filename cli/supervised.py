"""Run a function that executes the owner's code in a child process, and survive what it does.

    python -m cli.supervised <file descriptor>

Whatever that code does (exit, crash, loop without end), the parent reports it in one line. The
child ends with its parent, and prints to stderr only: stdout is for the command's own output.
"""

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from cli.die_with_parent import die_with_parent

Progress = Callable[[str, float], None]

FAULT_LENGTH = 300
EXIT_DEADLINE_S = 10.0
"""How long a process may take to exit after it has closed its files, in seconds."""


class SupervisedError(Exception):
    """The function failed; the message is one line."""


def run_supervised(
    function: str, *, code: str, timeout_s: float, report_progress: Progress, **arguments: Any
) -> Any:
    """Call a function in a child process and return its result.

    Args:
        function: as `module:name`. It also receives `timed`, which it enters while it executes the
            owner's code, and `report_progress`.
        code: what that code is called in messages.
        timeout_s: how long that code may run altogether, in seconds.
        arguments: keyword arguments, which are pickled.

    Raises:
        SupervisedError: the function failed, the code ended the process, or it took too long.
    """
    ours, theirs = Pipe()
    command = [sys.executable, "-P", "-m", "cli.supervised", str(theirs.fileno())]
    with ours, theirs:
        process = subprocess.Popen(  # noqa: S603  # our own module
            die_with_parent(*command),
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # so that its workers end with it
            stdin=subprocess.DEVNULL,
            stdout=2,
        )
        try:
            theirs.close()
            ours.send((function, arguments))
            return _follow(ours, process, code=code, left_s=timeout_s, report=report_progress)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _follow(
    connection: Connection,
    process: subprocess.Popen[bytes],
    *,
    code: str,
    left_s: float,
    report: Progress,
) -> Any:
    """Relay progress until the result arrives; `left_s` counts down while the code runs."""
    since: float | None = None
    timeout_s = left_s
    while True:
        if not connection.poll(None if since is None else since + left_s - time.monotonic()):
            raise SupervisedError(
                f"{code} did not finish within {timeout_s:g} s; use --timeout to allow more."
            )
        try:
            message = connection.recv()
        except (EOFError, OSError):
            raise SupervisedError(f"{code} {_describe_end(process)}.") from None
        match message:
            case ("progress", doing, share):
                report(doing, share)
            case ("started",):
                since = time.monotonic()
            case ("stopped",) if since is not None:
                left_s, since = left_s - (time.monotonic() - since), None
            case ("failed", text):
                raise SupervisedError(text)
            case ("done", result):
                return result


def _describe_end(process: subprocess.Popen[bytes]) -> str:
    try:
        status = process.wait(EXIT_DEADLINE_S)
    except subprocess.TimeoutExpired:
        return "closed the files of the process"
    if status >= 0:
        return f"ended the process with exit code {status}"
    more = ", perhaps for lack of memory" if -status == signal.SIGKILL else ""
    return f"crashed the process ({signal.Signals(-status).name}{more})"


def describe_fault(error: Exception) -> str:
    """Return an unexpected error as one line that asks for a report."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split())[:FAULT_LENGTH]
    return (
        f"unexpected {type(error).__name__}: {message} "
        f"({Path(place.filename).name} line {place.lineno}). Please report this bug."
    )


def main() -> None:
    """Call the function that the parent names, and send it the outcome."""
    connection = Connection(int(sys.argv[1]))
    function, arguments = connection.recv()

    @contextmanager
    def timed() -> Iterator[None]:
        connection.send(("started",))
        try:
            yield
        finally:
            connection.send(("stopped",))

    def report(doing: str, share: float) -> None:
        connection.send(("progress", doing, share))

    from registry.records import StoreError
    from trainer.errors import TrainerError

    module, _, name = function.partition(":")
    try:
        result = getattr(import_module(module), name)(
            **arguments, timed=timed, report_progress=report
        )
        message: tuple[str, Any] = ("done", result)
    except (StoreError, TrainerError) as error:
        message = ("failed", str(error))
    except Exception as error:
        message = ("failed", describe_fault(error))
    connection.send(message)


if __name__ == "__main__":
    main()
