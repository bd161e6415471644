"""`make functions-deploy`, with a fake gcloud that records its calls."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from functions.common.delivery import SWEEP
from harness.cloud import Cloud
from harness.programs import ROOT

NEEDED = {
    "project": "shop",
    "region": "europe-west1",
    "data-store": "gs://shop-data/in",
    "model-store": "gs://shop-models",
    "records": "gs://shop-records",
    "repository": "shop/models",
    "service-account": "functions@shop.iam",
    "trigger-account": "eventarc@shop.iam",
}


ANSWERS = """
case "$1 $2" in
"functions describe") echo https://on-data-arrival-abc.a.run.app ;;
"scheduler jobs") [ "$3" != describe ] || exit "$SCHEDULED_EXIT" ;;
esac
exit "$GCLOUD_EXIT"
"""


class Shell:
    """A shell in which only gcloud is fake."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        gcloud = folder / "gcloud"
        gcloud.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" "" >>{self.calls}\n{ANSWERS}')
        gcloud.chmod(0o755)
        self.folder = folder

    def deploy(
        self, flags: dict[str, str], *, gcloud_exit: int = 0, scheduled: bool = False
    ) -> int:
        words = shlex.join(f"--{name}={value}" for name, value in flags.items())
        path = f"{self.folder}:{os.environ['PATH']}"
        command = ["make", "functions-deploy", f"FLAGS={words}", f"PYTHON={sys.executable}"]
        self.ran = subprocess.run(
            [*command, f"FUNCTIONS={self.folder}/built"],
            cwd=ROOT,
            env={
                "PATH": path,
                "GCLOUD_EXIT": str(gcloud_exit),
                "SCHEDULED_EXIT": str(int(not scheduled)),
            },
            capture_output=True,
            text=True,
        )
        return self.ran.returncode

    def commands(self) -> list[list[str]]:
        return [call.split("\n") for call in self.calls.read_text().strip().split("\n\n")]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_both_functions_are_deployed_with_retries_and_their_own_accounts(shell: Shell) -> None:
    assert shell.deploy(NEEDED | {"token-secret": "github-token"}) == 0

    arrivals, releases = shell.commands()
    assert arrivals[:3] == ["functions", "deploy", "on-data-arrival"]
    assert releases[:3] == ["functions", "deploy", "on-model-release"]
    for command in (arrivals, releases):
        assert {"--gen2", "--retry", "--no-allow-unauthenticated"} <= set(command)
        assert {
            "--trigger-event-filters=type=google.cloud.storage.object.v1.finalized",
            "--service-account=functions@shop.iam",
            "--trigger-service-account=eventarc@shop.iam",
            "--set-secrets=PIPELINE_GITHUB_TOKEN=github-token:latest",
            "--max-instances=5",
            "--memory=256Mi",
        } <= set(command)
    assert "--trigger-event-filters=bucket=shop-data" in arrivals
    assert "--trigger-event-filters=bucket=shop-models" in releases
    assert f"--source={shell.folder}/built/on_data_arrival" in arrivals
    assert (shell.folder / "built/on_data_arrival/main.py").exists()
    [variables] = [word for word in arrivals if word.startswith("--set-env-vars=")]
    assert "PIPELINE_STORE=gs://shop-data/in,PIPELINE_RECORDS=gs://shop-records" in variables


def test_an_app_replaces_a_token(shell: Shell) -> None:
    app = {"app-id": "12", "installation-id": "34", "key-secret": "github-key"}

    assert shell.deploy(NEEDED | app) == 0

    for command in shell.commands():
        [variables] = [word for word in command if word.startswith("--set-env-vars=")]
        assert "PIPELINE_GITHUB_APP_ID=12,PIPELINE_GITHUB_INSTALLATION_ID=34" in variables
        assert "--set-secrets=PIPELINE_GITHUB_PRIVATE_KEY=github-key:latest" in command


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (NEEDED, "--token-secret, or --app-id"),
        (NEEDED | {"token-secret": "t", "records": "s3://shop"}, "must be gs://bucket"),
        ({"project": "shop"}, "--region"),
    ],
)
def test_missing_options_are_reported_before_any_deployment(
    shell: Shell, flags: dict[str, str], message: str
) -> None:
    assert shell.deploy(flags) != 0

    assert message in shell.ran.stderr
    assert not shell.calls.exists()


def test_it_stops_at_the_first_failed_deployment(shell: Shell) -> None:
    assert shell.deploy(NEEDED | {"token-secret": "t"}, gcloud_exit=1) != 0

    assert len(shell.commands()) == 1
    assert "error: on_data_arrival was not deployed" in shell.ran.stderr


@pytest.mark.parametrize(
    ("scheduled", "verb", "headers"),
    [(False, "create", "--headers="), (True, "update", "--update-headers=")],
)
def test_sweeps_are_scheduled_as_events_of_the_same_function(
    shell: Shell, scheduled: bool, verb: str, headers: str
) -> None:
    flags = NEEDED | {"token-secret": "t", "sweep-schedule": "*/15 * * * *"}

    assert shell.deploy(flags, scheduled=scheduled) == 0

    *_, command = shell.commands()
    url = "https://on-data-arrival-abc.a.run.app"
    assert command[:5] == ["scheduler", "jobs", verb, "http", "tollgate-sweep"]
    assert {
        "--schedule=*/15 * * * *",
        f"--uri={url}",
        f"--oidc-token-audience={url}",
        "--oidc-service-account-email=eventarc@shop.iam",
    } <= set(command)
    [sent_headers] = [word.removeprefix(headers) for word in command if word.startswith(headers)]
    assert f"ce-type={SWEEP}" in sent_headers.split(",")


@pytest.mark.costly
def test_the_function_handles_a_scheduled_sweep(cloud: Cloud) -> None:
    function = cloud.function()
    headers = {"Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": "sweep"}
    headers |= {"ce-type": SWEEP, "ce-source": "//cloudscheduler.googleapis.com"}

    assert function.send("{}", headers) == 200

    [line] = function.lines("Models swept")
    assert (line["severity"], line["decision"]) == ("INFO", "swept")
