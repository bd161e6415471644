"""The chart's own suites, in its folder `tests/`, run by helm-unittest."""

import os
import subprocess
import sys

import pytest

from tests.integration.deploy.chart import CHART, ROOT

PROGRAM = ROOT / ".tools" / "bin" / "helm-unittest"
DEADLINE_S = 300


@pytest.mark.costly
def test_the_suites_pass() -> None:
    if not PROGRAM.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("helm-unittest is missing, and under CI nothing is skipped")
        sys.stderr.write("\n!!! CHART SUITES SKIPPED: scripts/test-tools.sh builds helm-unittest\n")
        pytest.skip("CHART SUITES SKIPPED: helm-unittest is missing")

    result = subprocess.run(
        [str(PROGRAM), str(CHART)],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
    )

    assert result.returncode == 0, result.stdout
    assert "Tests:" in result.stdout


def test_no_file_of_helpers_is_longer_than_120_lines() -> None:
    lengths = {
        path.name: len(path.read_text().splitlines()) for path in CHART.glob("templates/_*.tpl")
    }

    assert lengths
    assert {name: length for name, length in lengths.items() if length > 120} == {}
