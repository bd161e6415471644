"""docs/google-cloud.md: its blocks run in a shell, and every command and flag exists."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from functions.common.settings import PipelineSettings
from harness.programs import ROOT, find_program

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANSWERS = {
    "projects describe": "123456789012",
    "storage service-agent": "service-123456789012@gs-project-accounts.iam.gserviceaccount.com",
    "functions describe": "https://on-data-arrival-abc.a.run.app",
    "beta monitoring": "projects/my-project/notificationChannels/1",
}
STAND_IN = """#!{python} -IS
import json, pathlib, sys
with pathlib.Path({calls!r}).open("a") as calls:
    calls.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
print({answers!r}.get(" ".join(sys.argv[1:3]), ""))
sys.exit(sys.argv[1:4] == ["scheduler", "jobs", "describe"])
"""
ACCOUNT = re.compile(
    r"--member=serviceAccount:tollgate-([a-z]+)@my-project\.iam\.gserviceaccount\.com"
)


class Page:
    """The result of running a page's blocks in order."""

    def __init__(self, folder: Path, *pages: str) -> None:
        self.folder = folder
        calls = folder / "calls"
        for name in ("gcloud", "kubectl"):
            program = folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(
                STAND_IN.format(python=sys.executable, calls=str(calls), name=name, answers=ANSWERS)
            )
            program.chmod(0o755)
        for name in ("Makefile", "scripts", "functions", "registry", "services"):
            (folder / name).symlink_to(ROOT / name)
        for name in ("signing.pem", "trusted.pem", "github-token.txt"):
            (folder / name).write_text("secret")
        blocks = [block for page in pages for block in BLOCK.findall((DOCS / page).read_text())]
        environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHON": sys.executable,
        }
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        self.calls: list[list[str]] = [json.loads(line) for line in calls.read_text().splitlines()]

    def of(self, program: str) -> list[list[str]]:
        return [call for call in self.calls if call[0] == program]

    def rights(self) -> dict[str, set[tuple[str, str, bool]]]:
        """Return each account's resources and roles, and whether a condition restricts them."""
        granted: dict[str, set[tuple[str, str, bool]]] = {}
        for call in self.of("gcloud"):
            line = " ".join(call)
            if (member := ACCOUNT.search(line)) and "add-iam-policy-binding" in call:
                resource = call[call.index("add-iam-policy-binding") + 1]
                role = re.search(r"--role=roles/(\S+)", line)
                assert role
                restricted = "--condition-from-file=releases-only.yaml" in call
                granted.setdefault(member[1], set()).add((resource, role[1], restricted))
        return granted


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(tmp_path_factory.mktemp("page"), "google-cloud.md", "gcs.md")


def lint(commands: list[list[str]], folder: Path) -> list[dict[str, Any]]:
    """Return the real gcloud's verdict on each command, without running it."""
    file = folder / "commands.json"
    file.write_text(json.dumps([{"command_string": shlex.join(each)} for each in commands]))
    result = subprocess.run(
        [find_program("gcloud"), "meta", "lint-gcloud-commands", f"--commands-file={file}"],
        env=os.environ | {"CLOUDSDK_CONFIG": str(folder), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def shape(call: list[str]) -> tuple[str, ...]:
    """Return a command without its values, so that one in a loop is checked once."""
    return (*call[:4], *sorted(word.partition("=")[0] for word in call if word.startswith("--")))


@pytest.mark.costly
def test_gcloud_knows_every_command_and_flag(page: Page, tmp_path: Path) -> None:
    commands = list({shape(call): call for call in page.of("gcloud")}.values())

    linted = lint(commands, tmp_path)

    assert len(linted) == len(commands) > 25
    assert [each["error_message"] for each in linted if not each["success"]] == []


@pytest.mark.costly
def test_the_check_finds_an_unknown_flag(tmp_path: Path) -> None:
    [found] = lint([["gcloud", "storage", "buckets", "create", "gs://a", "--colour=red"]], tmp_path)

    assert "unrecognized arguments: --colour=red" in found["error_message"]


def test_kubectl_knows_every_command_and_flag(page: Page) -> None:
    kubectl = find_program("kubectl")

    for call in page.of("kubectl"):
        dry = [kubectl, *call[1:], "--dry-run=client", "--output=name"]
        result = subprocess.run(dry, cwd=page.folder, capture_output=True, text=True)

        assert result.returncode == 0, result.stderr


def test_each_account_has_only_the_rights_that_it_needs(page: Page) -> None:
    data, models, feedback, records = (
        f"gs://my-project-{name}" for name in ("data", "models", "feedback", "pipeline")
    )
    viewer, creator = "storage.objectViewer", "storage.objectCreator"
    accessor = "secretmanager.secretAccessor"

    assert page.rights() == {
        "inference": {
            (models, viewer, False),
            (models, creator, True),
            (feedback, viewer, False),
            (feedback, creator, False),
        },
        "trainer": {
            (data, viewer, False),
            (models, viewer, False),
            (models, creator, False),
            ("signing-key", accessor, False),
            ("trusted-key", accessor, False),
        },
        "deployer": {
            (models, viewer, False),
            (models, creator, True),
            ("trusted-key", accessor, False),
            ("tollgate", "artifactregistry.writer", False),
            ("my-project", "container.developer", False),
        },
        "functions": {
            (data, viewer, False),
            (models, viewer, False),
            (records, viewer, False),
            (records, creator, False),
            ("github-token", accessor, False),
        },
        "events": {
            ("my-project", "eventarc.eventReceiver", False),
            ("my-project", "run.invoker", False),
        },
    }


def test_no_account_may_delete_or_overwrite_an_object(page: Page) -> None:
    granted = {role for rights in page.rights().values() for _, role, _ in rights}

    assert not granted & {"storage.admin", "storage.objectAdmin", "storage.objectUser", "editor"}


def test_no_other_page_grants_rights() -> None:
    others = [path for path in DOCS.glob("*.md") if path.name != "google-cloud.md"]

    assert [path.name for path in others if "roles/" in path.read_text()] == []
    assert [path.name for path in others if "add-iam-policy-binding" in path.read_text()] == []


def test_federated_accounts_are_bound_to_their_subjects(page: Page) -> None:
    bound = {}
    for call in page.of("gcloud"):
        if "--role=roles/iam.workloadIdentityUser" in call:
            member = next(word for word in call if word.startswith("--member="))
            bound[call[4].partition("@")[0]] = member.removeprefix("--member=")

    pool = "projects/123456789012/locations/global/workloadIdentityPools/github"
    environment = f"principalSet://iam.googleapis.com/{pool}/attribute.environment"
    assert bound == {
        "tollgate-trainer": f"{environment}/training",
        "tollgate-deployer": f"{environment}/production",
        "tollgate-inference": "serviceAccount:my-project.svc.id.goog[tollgate/tollgate-inference]",
    }


def test_every_service_that_a_command_uses_is_enabled(page: Page) -> None:
    [enabled] = [call[3:] for call in page.of("gcloud") if call[1:3] == ["services", "enable"]]

    groups = {
        "artifacts": "artifactregistry",
        "container": "container",
        "functions": "cloudfunctions",
        "iam": "iam",
        "logging": "logging",
        "scheduler": "cloudscheduler",
        "secrets": "secretmanager",
        "storage": "storage",
    }
    used = {call[1] for call in page.of("gcloud")} & set(groups)
    assert used == set(groups)
    assert {f"{groups[group]}.googleapis.com" for group in used} <= set(enabled)
    indirectly = ("cloudbuild", "eventarc", "iamcredentials", "pubsub", "run", "sts", "monitoring")
    assert {f"{name}.googleapis.com" for name in indirectly} <= set(enabled)


def test_the_files_that_the_page_writes_are_well_formed(page: Page) -> None:
    metric = yaml.safe_load((page.folder / "decisions.yaml").read_text())
    condition = yaml.safe_load((page.folder / "releases-only.yaml").read_text())
    alert = json.loads((page.folder / "blocked.json").read_text())

    assert set(metric["labelExtractors"]) == {
        label["key"] for label in metric["metricDescriptor"]["labels"]
    }
    assert condition["title"] == "releases-only"
    assert "/objects/{model}/releases/" in condition["expression"]
    assert "severity>=ERROR" in alert["conditions"][0]["conditionMatchedLog"]["filter"]


def test_records_outlive_the_drops_that_a_sweep_checks(page: Page) -> None:
    lifecycle = json.loads((page.folder / "records-lifecycle.json").read_text())

    days = lifecycle["rule"][0]["condition"]["age"]
    assert days * 86400 > PipelineSettings.model_fields["sweep_max_age_seconds"].default


def test_every_variable_of_the_workflows_is_on_the_page() -> None:
    text = (DOCS / "google-cloud.md").read_text()
    used = {
        name
        for path in (ROOT / ".github/workflows").glob("*.yml")
        for name in re.findall(r"\b(?:vars|secrets)\.([A-Z_]+)", path.read_text())
    }

    assert {name for name in used if f"`{name}`" not in text} == set()
