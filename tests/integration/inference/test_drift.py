"""Live inputs and predictions are compared with training data in the same bins."""

import asyncio
import random

import httpx
import numpy as np
import pytest

from registry.drift import Bins
from registry.records import ColumnStatistics
from services.inference.monitoring import drift as watch
from services.inference.settings import InferenceSettings
from tests.integration.inference.conftest import eventually, serving
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.trials import metric

ROWS = 600


@pytest.fixture(autouse=True)
def counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "COUNT_S", 0.02)


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

    async def test_requests_over_the_memory_limit_are_not_sampled(
        self,
        settings: InferenceSettings,
        neighbours: Neighbours,
        bearer: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(watch, "MAX_BYTES", 2_000)

        async with serving(settings) as client:
            for sent in (rows(shift=0), rows(shift=0)[:1]):
                await client.post(
                    "/v1/models/numbers:predict", json={"instances": sent}, headers=bearer
                )

            async def counted() -> bool:
                return await metric(client, "tollgate_drift_rows", model="numbers") > 0

            await eventually(counted)
            assert await metric(client, "tollgate_drift_rows", model="numbers") == 1

    async def test_old_rows_are_dropped(
        self,
        settings: InferenceSettings,
        neighbours: Neighbours,
        bearer: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async with serving(settings) as client:
            await self.index_of(client, bearer, rows(shift=3))
            monkeypatch.setattr(watch, "HALF_WINDOW_S", 0.05)

            async def forgotten() -> bool:
                await asyncio.sleep(0.02)
                return "tollgate_drift_rows{" not in (await client.get("/metrics")).text

            await eventually(forgotten)
