"""`tollgate models feedback` exports labelled rows for training."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import models
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import serving
from tests.integration.inference.labels import Bearer, event_of, predict, send_feedback
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import MIXED_ROW


class TestExport:
    def export(self, store: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setenv("INFERENCE_FEEDBACK_STORE", f"file://{store}")
        monkeypatch.setenv("TRAINER_DATA_STORE", f"file://{data}")
        result = CliRunner().invoke(models, ["feedback", "mixed"])
        assert result.exit_code == 0, result.output
        return [line for line in result.stdout.splitlines() if line.endswith(".csv")]

    @pytest.mark.costly
    async def test_each_labelled_row_is_exported_once_in_the_trainers_format(
        self,
        keeping: InferenceSettings,
        neighbours: Neighbours,
        bearer: Bearer,
        store: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        data = tmp_path / "data"
        sent = [{**MIXED_ROW, "size": 0.1}, {**MIXED_ROW, "colour": None, "sold": None}]
        async with serving(keeping) as client:
            event = event_of(await predict(client, bearer, *sent, model="mixed"))
            await send_feedback(client, bearer, event, ["big", "small"], model="mixed")
            [first] = self.export(store, data, monkeypatch)
            assert self.export(store, data, monkeypatch) == []

            event = event_of(await predict(client, bearer, MIXED_ROW, model="mixed"))
            await send_feedback(client, bearer, event, "big", model="mixed")
            [second] = self.export(store, data, monkeypatch)

        header = "size,colour,sold,label\n"
        assert [(data / "mixed" / name).read_text() for name in (first, second)] == [
            f"{header}0.1,red,true,big\n5.0,,,small\n",
            f"{header}5.0,red,true,big\n",
        ]

    async def test_an_interrupted_export_is_completed_by_the_next(
        self,
        keeping: InferenceSettings,
        neighbours: Neighbours,
        bearer: Bearer,
        store: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        data = tmp_path / "data"
        async with serving(keeping) as client:
            event = event_of(await predict(client, bearer, MIXED_ROW, model="mixed"))
            await send_feedback(client, bearer, event, "big", model="mixed")
        [name] = self.export(store, data, monkeypatch)
        content = (data / "mixed" / name).read_bytes()
        (data / "mixed" / name).unlink()

        assert self.export(store, data, monkeypatch) == [name]
        assert (data / "mixed" / name).read_bytes() == content

    async def test_rows_are_stored_only_if_configured(
        self,
        keeping: InferenceSettings,
        neighbours: Neighbours,
        bearer: Bearer,
        store: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        private = keeping.model_copy(update={"feedback_rows": False})
        async with serving(private) as client:
            event = event_of(await predict(client, bearer, MIXED_ROW, model="mixed"))
            sent = await send_feedback(client, bearer, event, "big", model="mixed")

        [path] = store.rglob("*.json")
        assert sent.json()["correct"] is not None
        assert json.loads(path.read_text())["rows"] is None
        assert self.export(store, tmp_path / "data", monkeypatch) == []
