"""`tollgate models import`: what a person sees, and that a failure changes nothing."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.integration.trainer import finished_models
from tests.integration.trainer.conftest import Workshop, new_workshop
from tests.integration.trainer.test_import import put_data


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
    monkeypatch.setenv("TRAINER_ACTOR", "eve@desk")
    return new_workshop(tmp_path)


def bring(path: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["models", "import", "m", str(path), *words])


@pytest.mark.slow
def test_a_failure_leaves_the_live_model_untouched(workshop: Workshop, tmp_path: Path) -> None:
    put_data(workshop, "joblib")
    path = finished_models.write("joblib", tmp_path)
    truncated = tmp_path / "truncated.joblib"
    truncated.write_bytes(path.read_bytes()[:-100])

    brought = bring(path, "--trust-pickle", "--release", "--reason", "better", "--json")
    versions, releases = workshop.store.list_versions("m"), workshop.store.list_releases("m")
    untrusted = bring(path, "--release")
    damaged = bring(truncated, "--trust-pickle", "--release")

    document = json.loads(brought.stdout)
    assert (brought.exit_code, document["gate"], document["release"]) == (0, "passed", 1)
    assert untrusted.exit_code == damaged.exit_code == 1
    [error] = untrusted.stderr.splitlines()
    assert error == (
        "error: model.joblib: is a pickle, and opening it executes code in it. If you trust its "
        "author, use --trust-pickle."
    )
    [error] = damaged.stderr.splitlines()
    assert error.startswith("error: truncated.joblib: the pickle cannot be loaded: ")
    assert workshop.store.list_versions("m") == versions
    assert workshop.store.list_releases("m") == releases


def test_force_requires_a_reason(workshop: Workshop, tmp_path: Path) -> None:
    result = bring(tmp_path / "model.onnx", "--force")

    assert result.exit_code == 2
    assert "--force requires --reason" in result.stderr
