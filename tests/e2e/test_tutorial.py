"""docs/tutorial.md and docs/prices.md, typed into a shell as they are."""

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


@pytest.mark.slow
def test_a_reader_of_the_tutorial_sells_a_model_and_sees_what_is_owed(platform: Platform) -> None:
    script = commands("tutorial.md", platform)
    script += 'ADMIN_TOKEN="$ADMIN_TOKEN"\n' + commands("prices.md", platform)

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=platform.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )

    shown = done.stdout
    assert done.returncode == 0, shown + done.stderr
    for expected in ("0.012 EUR", '"requests":1,', '"total":"0.01"', '"before":'):
        assert expected in shown.replace('": ', '":'), shown
    assert "urn:tollgate:problem" not in shown, shown
