"""Pages of the docs, typed into a shell as they are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.platform import Platform
from harness.programs import ROOT

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: str, platform: Platform) -> str:
    """Return a page's commands, on the addresses of a platform that already runs."""
    text = "\n".join(BLOCK.findall((ROOT / "docs" / page).read_text()))
    for default, service in (("8001", "auth"), ("8002", "inference"), ("8003", "billing")):
        text = text.replace(f"http://127.0.0.1:{default}", platform.urls[service])
    bin_folder = Path(sys.executable).parent
    return text.replace("make up\n", "").replace(".venv/bin/", f"{bin_folder}/")


def run(script: str, platform: Platform) -> str:
    """Return what a script prints, which must succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=platform.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_reader_of_the_tutorial_sells_a_model_and_sees_what_is_owed(platform: Platform) -> None:
    script = commands("tutorial.md", platform)
    script += 'ADMIN_TOKEN="$ADMIN_TOKEN"\n' + commands("prices.md", platform)

    shown = run(script, platform)

    for expected in ("0.012 EUR", '"requests":1,', '"total":"0.01"', '"before":'):
        assert expected in shown.replace('": ', '":'), shown
    assert "urn:tollgate:problem" not in shown, shown


@pytest.mark.slow
def test_whoever_handles_an_incident_sees_what_is_up_and_whether_the_books_agree(
    platform: Platform,
) -> None:
    shown = run(commands("incidents.md", platform), platform)

    assert shown.count('"status":"ok"') == 3, shown
    for expected in ("all sums agree", "all checks passed", "last hash", "live"):
        assert expected in shown, shown
