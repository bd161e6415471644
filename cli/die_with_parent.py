"""Run a command that ends when its parent process ends.

    python cli/die_with_parent.py <pid of the parent> <program> [argument ...]

The kernel sends the command SIGTERM when its parent dies for any reason, including `kill -9`
(prctl(2), PR_SET_PDEATHSIG; the setting survives exec). This module sets that and then execs the
command, so the pid stays the same. On systems without this feature (macOS), it only execs.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(*command: str) -> list[str]:
    """Return the argument list that runs `command` while the calling process lives."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent died before prctl took effect
        sys.exit(1)
    os.execvp(program, sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    main()
