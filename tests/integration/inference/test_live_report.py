"""`tollgate models report` shows the measurements of running processes."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.models.live_metrics import summarise
from harness.ports import free_port
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import Store
from tests.integration.inference.trials import metric, process

ROWS = 600


@pytest.fixture(autouse=True)
def environment(samples: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_MODEL_STORE", samples.url)
    monkeypatch.setenv("TRAINER_TRUSTED_KEYS", str(samples.trusted))


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["models", "report", *words])


@pytest.mark.costly
async def test_a_report_shows_drift_predictions_and_live_accuracy(
    settings: InferenceSettings, neighbours: Neighbours, bearer: dict[str, str], tmp_path: Path
) -> None:
    changes = {"feedback_store": f"file://{tmp_path}/feedback", "journal_dir": tmp_path / "journal"}
    page = tmp_path / "report.html"

    async with process(settings.model_copy(update=changes)) as url:
        async with httpx.AsyncClient(trust_env=False, timeout=30, headers=bearer) as client:
            model = f"{url}/v1/models/numbers"
            rows = [[9.0, 0.1 * (i % 7), None] for i in range(ROWS)]
            await client.post(f"{model}:predict", json={"instances": rows})
            for label in (1, 0):
                one = await client.post(f"{model}:predict", json={"instances": rows[:1]})
                feedback = {"usage_event": one.headers["x-usage-event"], "label": label}
                assert (await client.post(f"{model}:feedback", json=feedback)).status_code == 200

            async def counted() -> bool:
                return await metric(client, "tollgate_drift_rows", url=url) >= ROWS

            await eventually(counted)
        written = await asyncio.to_thread(run, "numbers", "--url", url, "--out", str(page))
        as_json = await asyncio.to_thread(run, "numbers", "--url", url, "--json")

    assert written.exit_code == 0, written.output
    text = page.read_text()
    assert "Live accuracy: 50.0% of 2 rows with feedback." in text
    assert "<td class=large>large" in text
    assert "100.0%" in text  # missing values of the last column
    [version] = json.loads(as_json.stdout)["versions"].values()
    assert version["psi"]["a"] > 1
    assert version["missing"] == {"a": 0, "b": 0, "c": 1}


def test_an_unreachable_process_is_one_line_and_exit_code_1() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    result = run("numbers", "--url", url)

    assert (result.exit_code, result.stderr) == (1, f"error: Cannot fetch metrics from {url}.\n")


def test_processes_are_weighted_by_their_rows() -> None:
    labels = 'model="m",version="v"'
    texts = [
        f"tollgate_drift_rows{{{labels}}} {rows}\n"
        f'tollgate_drift_column_psi{{{labels},column="a"}} {psi}\n'
        f'tollgate_feedback_rows_total{{{labels},outcome="correct"}} 2\n'
        for rows, psi in ((1_000, 0.1), (3_000, 0.5))
    ]

    summary = summarise("m", texts)["v"]

    assert summary["psi"] == {"a": pytest.approx(0.4)}
    assert (summary["rows"], summary["feedback"]) == (4_000, {"correct": 4})
