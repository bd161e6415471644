"""A shadow repeats answered requests, unseen and unbilled, and its disagreements are counted."""

import asyncio
import uuid
from pathlib import Path

import pytest

from services.inference.rollouts.metrics import RolloutMetrics
from services.inference.rollouts.shadow import ShadowRequest, Shadows, agree
from services.inference.settings import InferenceSettings
from tests.integration.inference import crafted
from tests.integration.inference.conftest import eventually
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import Store
from tests.integration.inference.trials import (
    BAD_ROW,
    GOOD_ROW,
    Trial,
    ask,
    metric,
    token,
    version_of,
)

ROWS = "tollgate_shadow_rows_total"


@pytest.fixture
def trial(samples: Store, tmp_path: Path) -> Trial:
    return Trial(samples, tmp_path)


class TestComparison:
    @pytest.mark.parametrize(
        ("factor", "outcome"), [(1.001, "agreed"), (2.0, "disagreed")], ids=["close", "far"]
    )
    async def test_each_row_is_counted_and_the_caller_sees_and_pays_only_the_live_version(
        self,
        trial: Trial,
        settings: InferenceSettings,
        neighbours: Neighbours,
        factor: float,
        outcome: str,
    ) -> None:
        version = crafted.publish(trial, crafted.weighted(factor), factor=factor)
        trial.release_manager.shadow("price", version=version)
        account = str(uuid.uuid4())

        async with trial.serving(settings) as client:
            answer = await ask(client, token(neighbours, account), rows=3)

            async def all_counted() -> bool:
                return await metric(client, ROWS, version=version, outcome=outcome) == 3

            await eventually(all_counted)

        assert version_of(answer) == trial.live_version
        assert answer.json()["predictions"] == [5.0] * 3
        [event] = neighbours.charged_to(account)
        assert (
            neighbours.charged[event]["data"] | {"rows": 3, "version": trial.live_version}
            == (neighbours.charged[event]["data"])
        )

    async def test_a_failing_shadow_is_counted_and_does_not_affect_callers(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        version = crafted.publish(trial, crafted.failing_below_zero())
        trial.release_manager.shadow("price", version=version)

        async with trial.serving(settings) as client:
            answer = await ask(client, token(neighbours), row=BAD_ROW)

            async def counted() -> bool:
                return await metric(client, ROWS, version=version, outcome="failed") == 1

            await eventually(counted)

        assert version_of(answer) == trial.live_version

    def test_numbers_agree_within_one_percent_and_labels_if_equal(self) -> None:
        assert agree(100.0, 100.9)
        assert not agree(100.0, 102.0)
        assert agree("red", "red")
        assert not agree(0, 1)


class TestBusy:
    @pytest.mark.costly
    async def test_requests_are_dropped_and_counted_when_it_is_busy(self, trial: Trial) -> None:
        version = crafted.publish(trial, crafted.slow())
        trial.release_manager.shadow("price", version=version)
        await trial.watcher.poll()
        live = trial.table.find("price")
        assert live is not None
        metrics = RolloutMetrics(trial.metrics)
        shadows = Shadows(trial.table, trial.loader, metrics, max_waiting=2)
        request = ShadowRequest(live.manifest, live.inputs.decode([GOOD_ROW]), [5.0], size=8)
        comparing = asyncio.create_task(shadows.run())

        for _ in range(20):
            shadows.offer(request)
        labels = {"model": "price", "version": version, "outcome": "agreed"}
        await eventually(lambda: trial.metrics.get_sample_value(ROWS, labels) == 2)

        dropped = "tollgate_shadow_requests_dropped_total"
        assert trial.metrics.get_sample_value(dropped, {"model": "price"}) == 18
        comparing.cancel()
        shadows.close()

    async def test_it_ends_with_the_release_that_ends_it(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        version = crafted.publish(trial, crafted.weighted())
        trial.release_manager.shadow("price", version=version)
        trial.release_manager.shadow("price", version=None)

        async with trial.serving(settings) as client:
            assert version_of(await ask(client, token(neighbours))) == trial.live_version
            assert await metric(client, ROWS) == 0
