"""Live inputs and predictions are compared with training data in the same bins."""

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from registry.drift import Bins
from registry.records import ColumnStatistics
from services.inference.models.table import LoadedModel
from services.inference.monitoring.answered import AnsweredRequest
from services.inference.monitoring.drift import DriftMonitor
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually, serving
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import Store
from tests.integration.inference.shelf import Shelf
from tests.integration.inference.trials import metric

ROWS = 600


def numbers(**changes: object) -> Bins:
    fields = {"name": "a", "kind": "number", "count": 1_000, "missing": 0.0}
    shape = {"edges": [1.0, 2.0, 3.0], "shares": [0.25] * 4}
    return Bins(ColumnStatistics.model_validate(fields | shape | changes))


class TestBins:
    def test_a_bin_includes_its_upper_edge_and_missing_values_are_separate(self) -> None:
        values = np.array([0.5, 1.0, 1.5, 3.0, 9.0, np.nan], dtype=np.float32)

        assert numbers().count(values).tolist() == [2, 1, 1, 1, 1]

    def test_unknown_categories_count_as_other(self) -> None:
        bins = numbers(kind="text", edges=None, categories=["red", "blue"], shares=[0.5, 0.4, 0.1])

        counts = bins.count(np.array(["blue", "", "red", "mauve", "blue"], dtype=object))

        assert counts.tolist() == [1, 2, 1, 1]
        assert bins.names() == ["red", "blue", "other"]

    def test_a_column_that_was_empty_in_training_counts_any_value(self) -> None:
        bins = numbers(edges=None, shares=[])

        assert bins.count(np.array([1.0, np.nan])).tolist() == [1, 1]
        assert bins.stability(np.array([1, 1])) == 0

    @pytest.mark.parametrize(
        ("counts", "index"),
        [
            ([250, 250, 250, 250, 0], 0.0),
            ([500, 500, 500, 500, 700], 0.0),
            # Σ (live − training) · ln(live ÷ training), worked out by hand.
            ([400, 300, 200, 100, 0], 0.2282),
        ],
    )
    def test_the_index_follows_the_formula(self, counts: list[int], index: float) -> None:
        assert numbers().stability(np.array(counts)) == pytest.approx(index, abs=1e-4)

    def test_an_empty_bin_gives_a_large_but_finite_index(self) -> None:
        assert 1 < numbers().stability(np.array([0, 0, 500, 500, 0])) < 10


def rows(*, shift: float, missing: float = 0.0) -> list[list[float | None]]:
    """Return rows like the training data of `numbers`, with its first column shifted."""
    chance = random.Random(7)
    made: list[list[float | None]] = [
        [chance.gauss(0, 1) + shift, chance.gauss(0, 1), chance.gauss(0, 1)] for _ in range(ROWS)
    ]
    for row in made[: int(missing * ROWS)]:
        row[2] = None
    return made


@pytest.mark.costly
class TestOverHttp:
    async def index_of(
        self, client: httpx.AsyncClient, bearer: dict[str, str], sent: list[list[float | None]]
    ) -> dict[str, float]:
        """Send rows to `numbers`, and return its drift metrics."""
        path = "/v1/models/numbers:predict"
        answer = await client.post(path, json={"instances": sent}, headers=bearer)
        assert answer.status_code == 200

        async def counted() -> bool:
            return await metric(client, "tollgate_drift_rows", model="numbers") == len(sent)

        await eventually(counted)
        labels = {"model": "numbers", "version": answer.headers["x-model-version"]}
        found = {
            column: await metric(client, "tollgate_drift_column_psi", column=column, **labels)
            for column in "abc"
        }
        return found | {
            "predictions": await metric(client, "tollgate_drift_prediction_psi", **labels),
            "missing": await metric(
                client, "tollgate_drift_column_missing_ratio", column="c", **labels
            ),
            "share of 1": await metric(
                client, "tollgate_drift_prediction_ratio", bin="1", **labels
            ),
        }

    async def test_rows_like_the_training_data_show_little_drift(
        self, settings: InferenceSettings, neighbours: Neighbours, bearer: dict[str, str]
    ) -> None:
        async with serving(settings) as client:
            found = await self.index_of(client, bearer, rows(shift=0))

        assert max(found[name] for name in "abc") < 0.25
        assert found["missing"] == 0
        assert 0.3 < found["share of 1"] < 0.7

    async def test_a_shifted_column_and_missing_values_show_drift(
        self, settings: InferenceSettings, neighbours: Neighbours, bearer: dict[str, str]
    ) -> None:
        async with serving(settings) as client:
            found = await self.index_of(client, bearer, rows(shift=3, missing=0.5))

        assert found["a"] > 1
        assert max(found["b"], found["c"]) < 0.25
        assert found["predictions"] > 0.25
        assert found["missing"] == 0.5
        assert found["share of 1"] > 0.9

    async def test_text_and_booleans_are_compared_too(
        self, settings: InferenceSettings, neighbours: Neighbours, bearer: dict[str, str]
    ) -> None:
        sent = [{"size": 5.0, "colour": "mauve", "sold": True}] * ROWS

        async with serving(settings) as client:
            await client.post("/v1/models/mixed:predict", json={"instances": sent}, headers=bearer)

            async def counted() -> bool:
                return await metric(client, "tollgate_drift_rows", model="mixed") == ROWS

            await eventually(counted)
            for column in ("colour", "sold"):
                assert (
                    await metric(client, "tollgate_drift_column_psi", model="mixed", column=column)
                    > 0.25
                )

    async def test_too_few_rows_give_no_index_and_rows_over_the_limit_are_not_sampled(
        self, settings: InferenceSettings, neighbours: Neighbours, bearer: dict[str, str]
    ) -> None:
        few = settings.model_copy(update={"drift_rows_per_second": 50})
        sent = rows(shift=3)

        async with serving(few) as client:
            await client.post(
                "/v1/models/numbers:predict", json={"instances": sent}, headers=bearer
            )

            async def counted() -> bool:
                return await metric(client, "tollgate_drift_rows", model="numbers") == 50

            await eventually(counted)
            assert "tollgate_drift_column_psi{" not in (await client.get("/metrics")).text


class TestLimits:
    @pytest.fixture
    async def model(self, samples: Store, tmp_path: Path) -> LoadedModel:
        shelf = Shelf(samples, tmp_path)
        await shelf.watcher.poll()
        model = shelf.table.find("numbers")
        assert model is not None
        return model

    async def test_requests_over_the_memory_limit_are_not_sampled(self, model: LoadedModel) -> None:
        registry = CollectorRegistry()
        monitor = DriftMonitor(registry, rows_per_second=1_000, max_bytes=2_000, count_s=0.02)
        counting = asyncio.create_task(monitor.run())

        for size, sent in ((10_000, rows(shift=0)), (16, rows(shift=0)[:1])):
            monitor.sample(model, [answered(model, sent, size=size)])
        await eventually(lambda: bool(counted_rows(registry, model)))

        assert counted_rows(registry, model) == 1
        counting.cancel()

    async def test_old_rows_are_dropped(self, model: LoadedModel) -> None:
        registry = CollectorRegistry()
        monitor = DriftMonitor(registry, rows_per_second=1_000, count_s=0.1, half_window_s=0.05)
        counting = asyncio.create_task(monitor.run())

        monitor.sample(model, [answered(model, rows(shift=3), size=10_000)])
        await eventually(lambda: counted_rows(registry, model) == ROWS)
        await eventually(lambda: counted_rows(registry, model) is None)

        counting.cancel()


def answered(model: LoadedModel, sent: list[Any], *, size: int) -> AnsweredRequest:
    """Return an answered request with these rows."""
    return AnsweredRequest("event", "account", model.inputs.decode(sent), [1] * len(sent), size)


def counted_rows(registry: CollectorRegistry, model: LoadedModel) -> float | None:
    """Return how many rows are in the drift window of a version."""
    labels = {"model": model.manifest.model, "version": model.manifest.version}
    return registry.get_sample_value("tollgate_drift_rows", labels)
