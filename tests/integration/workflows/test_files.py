"""Every workflow passes the linter, pins its actions, and has a restricted token."""

import os
import re
import shutil
import subprocess
from typing import Any

import pytest

from functions.common.events import Arrival
from harness.programs import ROOT
from harness.workflow_runner import WORKFLOWS, evaluate, read

NAMES = sorted(path.name for path in WORKFLOWS.glob("*.yml"))
PINNED = re.compile(r"uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
ARRIVAL = Arrival("shop-data", "wine/part 1.csv", "17", "wine", "part 1.csv")


def jobs(name: str) -> list[dict[str, Any]]:
    return list(read(name)["jobs"].values())


def test_the_linter_passes() -> None:
    linter = shutil.which("actionlint", path=str(ROOT / ".tools/bin"))
    if linter is None:
        without = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        without("actionlint is not there; scripts/go-tools.sh builds it")

    result = subprocess.run([linter, "-no-color"], cwd=ROOT, capture_output=True, text=True)

    assert result.stdout == ""
    assert result.returncode == 0


@pytest.mark.parametrize("name", NAMES)
class TestEveryWorkflow:
    def test_actions_are_pinned_to_a_commit(self, name: str) -> None:
        lines = (WORKFLOWS / name).read_text().splitlines()

        used = [line.strip().removeprefix("- ") for line in lines if "uses:" in line]

        assert [line for line in used if not PINNED.fullmatch(line)] == []

    def test_the_token_can_only_read(self, name: str) -> None:
        granted = read(name)["permissions"]

        assert granted.pop("id-token", "write") == "write"
        assert granted == {"contents": "read"}
        assert not any("permissions" in job for job in jobs(name))

    def test_every_job_has_a_timeout(self, name: str) -> None:
        assert all(job["timeout-minutes"] <= 360 for job in jobs(name))

    def test_scripts_contain_no_event_data(self, name: str) -> None:
        scripts = [step["run"] for job in jobs(name) for step in job["steps"] if "run" in step]

        assert [script for script in scripts if "${{" in script] == []

    def test_every_make_target_exists(self, name: str) -> None:
        makefile = (ROOT / "Makefile").read_text()
        scripts = [step["run"] for job in jobs(name) for step in job["steps"] if "run" in step]

        targets = {
            target for script in scripts for target in re.findall(r"^\s*make (\S+)", script, re.M)
        }

        assert {one for one in targets if not re.search(rf"^{one}:", makefile, re.M)} == set()


@pytest.mark.parametrize("name", ["train.yml", "deploy.yml", "rollback.yml"])
def test_no_waiting_run_is_dropped(name: str) -> None:
    concurrency = read(name)["concurrency"]

    assert concurrency["queue"] == "max"
    assert "cancel-in-progress" not in concurrency


@pytest.mark.parametrize(
    ("name", "event_type"), [("train.yml", "data-arrived"), ("deploy.yml", "model-released")]
)
def test_a_run_has_the_title_that_the_function_searches_for(name: str, event_type: str) -> None:
    event = {"client_payload": ARRIVAL.payload}
    github = {"event_name": "repository_dispatch", "event": event, "sha": "c0ffee"}

    title = evaluate(read(name)["run-name"], {"github": github})

    assert title == f"{event_type} {ARRIVAL.identity}"
    assert read(name)[True]["repository_dispatch"]["types"] == [event_type]


@pytest.mark.parametrize("name", ["train.yml", "deploy.yml"])
def test_models_do_not_wait_for_each_other(name: str) -> None:
    groups = set()
    for model in ("wine", "beer", "images"):
        github = {"event": {"client_payload": {"model": model}}}
        groups.add(evaluate(read(name)["concurrency"]["group"], {"github": github, "inputs": {}}))
    manual = {"github": {"event": {}}, "inputs": {"model": "wine"}}
    groups.add(evaluate(read(name)["concurrency"]["group"], manual))
    groups.add(evaluate(read("deploy.yml")["concurrency"]["group"], {"github": {"event": {}}}))

    assert len(groups) == 4
