"""What `helm test` runs, on a platform that runs here."""

import os
import subprocess
import sys

import pytest

from tests.e2e.platform import ROOT, Platform

SCRIPT = ROOT / "deploy/helm/tollgate/files/first_prediction.py"


@pytest.mark.parametrize(
    ("sample_model", "last"), [("true", "bill: 0.0006 USD"), ("false", "usage: 200")]
)
def test_it_goes_the_way_of_a_first_caller(
    platform: Platform, sample_model: str, last: str
) -> None:
    urls = {f"{name.upper()}_URL": url for name, url in platform.urls.items()}
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT)],
        env={"PATH": os.environ["PATH"], "SAMPLE_MODEL": sample_model, **urls},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == last
