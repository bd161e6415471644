"""`tollgate pipelines sweep` dispatches lost drops, once."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.pipelines.sweep import UserToken
from functions.common.storage import StorageError
from harness.cloud import Cloud
from harness.gcs import Emulator
from harness.http_servers import Response

PAST_QUIET_S = "0"


@pytest.fixture
def cloud(gcs: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Create a data bucket, a records bucket and a fake GitHub; drops end at once."""
    with closing(Cloud(gcs, tmp_path, tmp_path)) as made:
        settings = made.settings() | {"PIPELINE_QUIET_SECONDS": PAST_QUIET_S}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path))
        yield made


def sweep(*words: str) -> Result:
    return CliRunner().invoke(app, ["pipelines", "sweep", *words])


def test_a_drop_is_dispatched_once_and_the_status_shows_it(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = cloud.put("wine/part.csv")

    first, again = sweep(), sweep("--json")

    drop = f"{cloud.bucket}/wine/part.csv#{event['data']['generation']}"
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert f"dispatched  {drop}: " in first.stdout
    assert first.stdout.endswith("1 model swept, 1 drop dispatched\n")
    assert [each["decision"] for each in json.loads(again.stdout)] == ["idle"]
    assert len(cloud.github.dispatches_of("wine")) == 1

    monkeypatch.setenv("TRAINER_DATA_STORE", f"gs://{cloud.bucket}")
    status = CliRunner().invoke(app, ["pipelines", "status", "wine", "--json"])
    [shown] = json.loads(status.stdout)["drops"]
    assert [step["stage"] for step in shown["steps"]] == ["seen", "dispatched"]
    assert shown["drop"] == drop


def test_a_failed_dispatch_is_named_and_exits_1(cloud: Cloud) -> None:
    cloud.put("wine/part.csv")
    cloud.github.script = [Response(500)]

    result = sweep()

    assert result.exit_code == 1
    assert "retried" in result.stdout
    assert isinstance(result.exception, SystemExit)


def test_a_bucket_that_cannot_be_read_is_one_line_and_exits_1(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")

    result = sweep()

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: Cloud Storage")


def test_without_settings_it_names_what_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["pipelines", "sweep"], env={"PIPELINE_STORE": None})

    assert result.exit_code == 2
    assert "PIPELINE_STORE" in result.stderr


def test_without_credentials_there_is_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))

    with pytest.raises(StorageError, match="No access token"):
        UserToken().get()
