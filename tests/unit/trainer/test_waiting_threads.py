"""Threads of a fit that wait for one another leave the CPUs to other processes."""

import subprocess
import sys

import pytest

from harness.programs import ROOT


@pytest.mark.parametrize(
    ("given", "found"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")]
)
def test_the_policy_is_set_before_openmp_reads_it(given: dict[str, str], found: str) -> None:
    code = "import os, sys, trainer; print(os.environ['OMP_WAIT_POLICY'], 'sklearn' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=given,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == [found, "False"]
