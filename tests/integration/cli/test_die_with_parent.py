import os
import signal
import subprocess
import sys
import time

import pytest

from cli.die_with_parent import die_with_parent

PARENT = """
import subprocess, sys
from cli.die_with_parent import die_with_parent
child = subprocess.Popen(die_with_parent("sleep", "60"))
print(child.pid, flush=True)
child.wait()
"""


def test_the_command_keeps_the_pid() -> None:
    child = subprocess.Popen(
        die_with_parent(sys.executable, "-c", "import os; print(os.getpid())"),
        stdout=subprocess.PIPE,
    )
    output, _ = child.communicate()

    assert int(output) == child.pid
    assert child.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the child")
def test_a_killed_parent_takes_the_command_with_it() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)

    deadline = time.monotonic() + 60
    while runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_does_not_start_if_its_parent_is_gone() -> None:
    command = die_with_parent("echo", "started")
    command[command.index(str(os.getpid()))] = "1"

    done = subprocess.run(command, capture_output=True)

    assert (done.returncode, done.stdout) == (1, b"")
