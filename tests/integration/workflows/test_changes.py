"""After CI on main: which images are rolled out, and which models are retrained."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.programs import ROOT
from harness.workflow_runner import Runner, read, value_of

VARIABLES = {
    "DATA_STORE": "gs://shop-data",
    "MODEL_STORE": "gs://shop-models",
    "SIGNING_SECRET": "signing",
    "TRUSTED_SECRETS": "first",
    "NAMESPACE": "sales",
    "HELM_RELEASE": "shop",
    "REGISTRY": "eu.example/shop",
}
STAND_IN = """#!{python} -IS
import json, pathlib, sys
known = json.loads(pathlib.Path({known!r}).read_text())
with pathlib.Path({calls!r}).open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
match sys.argv[1:]:
    case ["models", "list", model, "--json"]:
        rows = [{{"version": "v1", "gate": "passed"}}] if model in known else []
        print(json.dumps([*rows, {{"version": "v2", "gate": "refused: signature"}}]))
    case ["models", "show", model, "--to", "v1", "--json"]:
        print(json.dumps({{"environment": {{"commit": known[model]}} if known[model] else {{}}}}))
    case ["models", "show", *_]:
        sys.exit("error: No trusted key signed it.")
"""
"""Every model has a newest version that is refused."""


class Repository:
    """A checkout with a history in which workflows run, with a scripted `tollgate`."""

    def __init__(self, folder: Path) -> None:
        self.runner = Runner(folder, vars=VARIABLES)
        self.checkout = self.runner.checkout
        self._known, self._calls = folder / "known", folder / "tollgate-calls"
        self.trained({})
        tollgate = self.checkout / ".venv/bin/tollgate"
        tollgate.unlink()
        known, calls = str(self._known), str(self._calls)
        tollgate.write_text(STAND_IN.format(python=sys.executable, known=known, calls=calls))
        tollgate.chmod(0o755)
        for name in ("signing", "first"):
            self.runner.secret(name, b"key")
        (self.checkout / "Dockerfile").write_bytes((ROOT / "Dockerfile").read_bytes())
        self._git("init", "--quiet", "--initial-branch", "main")

    def commit(self, *paths: str) -> str:
        """Change and commit files; return the commit's name."""
        for path in paths:
            file = self.checkout / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as text:
                text.write("changed\n")
            self._git("add", "--force", path)
        self._git("commit", "--quiet", "--message", "a change")
        return self._git("rev-parse", "HEAD").strip()

    def trained(self, commits: dict[str, str]) -> None:
        """Set the commit that each model's newest version was trained from."""
        self._known.write_text(json.dumps(commits))

    def trainings(self) -> list[list[str]]:
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [call for call in map(json.loads, lines) if call[0] == "train"]

    def passed(self, workflow: str, **run: Any) -> dict[str, str]:
        """Run a workflow as after CI; return the outcomes of its steps."""
        return self.runner.run(workflow, event=after_ci(**run))

    def _git(self, *arguments: str) -> str:
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
        result = subprocess.run(
            ["git", *who, *arguments],
            cwd=self.checkout,
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout


def after_ci(
    *, conclusion: str = "success", event: str = "push", repository: str = "shop/models"
) -> dict[str, Any]:
    """Return the event of a finished CI run."""
    source = {"full_name": repository}
    run = {"conclusion": conclusion, "event": event, "head_repository": source}
    return {"name": "workflow_run", "workflow_run": run | {"head_sha": "HEAD"}}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.mark.parametrize("workflow", ["deploy.yml", "train.yml"])
class TestOnlyAfterCi:
    def test_no_push_starts_it_directly(self, workflow: str) -> None:
        triggers = read(workflow)[True]

        assert "push" not in triggers
        assert triggers["workflow_run"] == {
            "workflows": [read("ci.yml")["name"]],
            "types": ["completed"],
            "branches": ["main"],
        }

    @pytest.mark.parametrize(
        "run",
        [
            {"conclusion": "failure"},
            {"conclusion": "cancelled"},
            {"event": "pull_request"},
            {"repository": "stranger/models"},
        ],
    )
    def test_nothing_runs_unless_ci_passed_on_a_push_to_this_repository(
        self, repository: Repository, workflow: str, run: dict[str, str]
    ) -> None:
        assert repository.passed(workflow, **run) == {}


class TestImages:
    @pytest.mark.costly
    @pytest.mark.parametrize(
        "path",
        [
            "services/auth/app.py",
            "trainer/pipeline.py",
            "cli/main.py",
            "requirements/billing.txt",
            "docs/pipelines.md",  # the console's image has the docs site
            "Dockerfile",
            "pyproject.toml",
            "deploy/helm/tollgate/values.yaml",
        ],
    )
    def test_changed_inputs_are_rolled_out(self, repository: Repository, path: str) -> None:
        repository.runner.deployed(repository.commit("README.md"))
        replace_links(repository)
        repository.commit(path)

        outcomes = repository.passed("deploy.yml")

        assert outcomes["Roll out"] == outcomes["Test"] == "success"

    @pytest.mark.parametrize(
        "path",
        [
            "examples/quickstart.ipynb",
            "tests/test_x.py",
            "models/wine/pipeline.py",
            "README.md",
            "deploy/helm/tollgate/tests/x_test.yaml",
        ],
    )
    def test_other_changes_are_not_rolled_out(self, repository: Repository, path: str) -> None:
        repository.runner.deployed(repository.commit("README.md"))
        repository.commit(path)

        outcomes = repository.passed("deploy.yml")

        assert outcomes["Compare with what is deployed"] == "success"
        assert outcomes["Build and push"] == outcomes["Roll out"] == outcomes["Test"] == "skipped"

    @pytest.mark.costly
    def test_a_change_whose_own_deployment_failed_is_rolled_out_with_the_next(
        self, repository: Repository
    ) -> None:
        repository.runner.deployed(repository.commit("README.md"))
        repository.commit("services/auth/app.py")
        repository.commit("docs/pipelines.md")

        assert repository.passed("deploy.yml")["Roll out"] == "success"

    def test_an_older_commit_with_late_ci_is_not_rolled_out(self, repository: Repository) -> None:
        older = repository.commit("services/auth/app.py")
        newer = repository.commit("services/auth/app.py")
        repository.runner.deployed(newer)
        repository._git("checkout", "--quiet", older)

        assert repository.passed("deploy.yml")["Roll out"] == "skipped"

    @pytest.mark.costly
    @pytest.mark.parametrize("deployed", ["", "latest", "f" * 40])
    def test_they_are_rolled_out_if_the_deployed_commit_is_unknown(
        self, repository: Repository, deployed: str
    ) -> None:
        repository.commit("README.md")
        repository.runner.deployed(deployed)

        assert repository.passed("deploy.yml")["Roll out"] == "success"

    @pytest.mark.costly
    def test_a_manual_run_always_rolls_out(self, repository: Repository) -> None:
        outcomes = repository.runner.run("deploy.yml", event={"name": "workflow_dispatch"})

        assert outcomes["Compare with what is deployed"] == "skipped"
        assert outcomes["Roll out"] == "success"


@pytest.mark.costly
class TestModels:
    def test_a_change_of_a_models_code_trains_that_model(self, repository: Repository) -> None:
        before = repository.commit("README.md", "trainer/pipeline.py")
        repository.runner.folders("beer", "wine")
        repository.trained({"beer": before, "wine": before})
        changed = repository.commit("models/wine/pipeline.py")
        repository.commit("docs/pipelines.md")

        repository.passed("train.yml")

        [call] = repository.trainings()
        assert call[:3] == ["train", "wine", "--release"]
        assert call[3:5] == ["--pipeline", "models/wine/pipeline.py"]
        assert call[5:7] == ["--once", f"code/wine/{changed}"]

    @pytest.mark.parametrize("path", ["trainer/pipeline.py", "requirements/trainer.txt"])
    def test_a_change_of_the_trainer_trains_every_model(
        self, repository: Repository, path: str
    ) -> None:
        before = repository.commit("README.md")
        replace_links(repository)
        repository.runner.folders("beer", "wine")
        repository.trained({"beer": before, "wine": before})
        changed = repository.commit(path)

        repository.passed("train.yml")

        keys = [call[call.index("--once") + 1] for call in repository.trainings()]
        assert keys == [f"code/beer/{changed}", f"code/wine/{changed}"]

    @pytest.mark.parametrize("path", ["docs/data.md", "services/auth/app.py", "models/beer/x.py"])
    def test_any_other_change_trains_nothing(self, repository: Repository, path: str) -> None:
        trained = repository.commit("README.md", "trainer/pipeline.py")
        repository.runner.folders("wine", "new")
        repository.trained({"wine": trained})
        repository.commit(path)

        repository.passed("train.yml")

        assert repository.trainings() == []
        assert [name for name, _, _ in repository.runner.ran] == ["models"]

    def test_a_change_whose_own_ci_failed_is_trained_after_the_next(
        self, repository: Repository
    ) -> None:
        before = repository.commit("README.md", "trainer/pipeline.py")
        repository.runner.folders("wine")
        repository.trained({"wine": before})
        changed = repository.commit("models/wine/pipeline.py")
        repository.commit("tests/test_x.py")

        repository.passed("train.yml")

        assert [call[-1] for call in repository.trainings()] == [f"code changed: {changed}"]

    def test_a_version_trained_since_by_new_data_is_up_to_date(
        self, repository: Repository
    ) -> None:
        repository.runner.folders("wine")
        repository.commit("models/wine/pipeline.py", "trainer/pipeline.py")
        repository.trained({"wine": repository.commit("README.md")})

        repository.passed("train.yml")

        assert repository.trainings() == []

    def test_a_version_from_an_unknown_commit_is_retrained(self, repository: Repository) -> None:
        repository.commit("trainer/pipeline.py")
        repository.runner.folders("wine")
        repository.trained({"wine": ""})

        repository.passed("train.yml")

        assert len(repository.trainings()) == 1


class TestManualRuns:
    @pytest.mark.costly
    def test_all_models_are_trained_in_separate_jobs(self, repository: Repository) -> None:
        repository.runner.folders("beer", "wine")

        repository.runner.run("train.yml", event={"name": "workflow_dispatch"})

        assert [model for name, model, _ in repository.runner.ran if name == "train"] == [
            "beer",
            "wine",
        ]
        assert [call[1] for call in repository.trainings()] == ["beer", "wine"]

    @pytest.mark.parametrize(
        ("value", "is_allowed"), [("true", True), ("false", False), ("", False)]
    )
    def test_a_change_of_the_signature_can_be_allowed(
        self, repository: Repository, value: str, is_allowed: bool
    ) -> None:
        inputs = {"model": "wine", "target": "good", "allow_signature_change": value}

        repository.runner.run("train.yml", event={"name": "workflow_dispatch"}, inputs=inputs)

        [call] = repository.trainings()
        assert ("--allow-signature-change" in call) is is_allowed
        assert call[call.index("--target") + 1] == "good"

    def test_a_hostile_name_is_not_executed(self, repository: Repository) -> None:
        name = '$(touch x)"]\nmodels=[" ;'

        repository.runner.run(
            "train.yml", event={"name": "workflow_dispatch"}, inputs={"model": name}
        )

        assert [call[1] for call in repository.trainings()] == [name]
        assert not (repository.checkout / "x").exists()


def test_a_model_is_trained_by_one_job_at_a_time() -> None:
    train = read("train.yml")
    job = train["jobs"]["train"]["concurrency"]

    assert job["group"] == "train-${{ matrix.model }}"
    assert job["queue"] == "max"
    # A job that waits for a group that its own run occupies would never start.
    assert not train["concurrency"]["group"].startswith("train-")


def test_image_and_model_rollouts_are_mutually_exclusive() -> None:
    jobs = read("deploy.yml")["jobs"].values()

    assert [job["concurrency"] for job in jobs] == [{"group": "rollout", "queue": "max"}] * 2


def test_the_matrix_comes_from_the_first_job() -> None:
    needs = {"models": {"outputs": {"models": '["beer","wine"]'}}}
    [expression] = [read("train.yml")["jobs"]["train"]["strategy"]["matrix"]["model"]]

    assert value_of(expression.strip("${} "), {"needs": needs}) == ["beer", "wine"]


def replace_links(repository: Repository) -> None:
    """Replace links into the real checkout by files."""
    for name in ("requirements", "pyproject.toml"):
        (repository.checkout / name).unlink()
    (repository.checkout / "pyproject.toml").write_text("")
    (repository.checkout / "requirements").mkdir()
    for name in ("local.txt", "dev.txt"):
        (repository.checkout / "requirements" / name).write_text("")
    (repository.checkout / ".venv" / "local.stamp").touch()
