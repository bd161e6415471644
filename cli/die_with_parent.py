"""Run a command that ends with the process that started it.

    python cli/die_with_parent.py <pid of the parent> <program> [argument ...]

The kernel sends the command SIGTERM when its parent dies, in whatever way, `kill -9` included
(prctl(2), PR_SET_PDEATHSIG; the setting survives exec). The pid stays the same: this module sets
this tie and becomes the command. Where the kernel has no such thing (macOS), it only does the
latter.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(*command: str) -> list[str]:
    """The argument list that runs `command` for as long as the calling process lives."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the tie was made
        sys.exit(1)
    os.execvp(program, sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    main()
