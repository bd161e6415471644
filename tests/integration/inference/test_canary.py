"""A canary serves its share of the accounts, and is rolled back if it is worse."""

import asyncio
import uuid
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from registry.releases import ReleaseManager
from registry.storage.filesystems import open_filesystem
from registry.store import ModelStore
from services.inference.rollouts.canary import Canaries, rollout_bucket
from services.inference.rollouts.judge import MIN_SAMPLE
from services.inference.rollouts.metrics import RolloutMetrics
from services.inference.settings import InferenceSettings
from tests.integration.inference import crafted
from tests.integration.inference.conftest import eventually
from tests.integration.inference.neighbours import Neighbours
from tests.integration.inference.samples import Store
from tests.integration.inference.trials import (
    BAD_ROW,
    GOOD_ROW,
    Trial,
    account_of,
    ask,
    metric,
    process,
    serves,
    token,
    version_of,
)

PROCESSES = 3
EXPLAIN = "/v1/models/price:explain"
STOPPED = "tollgate_canary_stops_total"
PERCENT = "tollgate_model_canary_percent"


@pytest.fixture
def trial(samples: Store, tmp_path: Path) -> Trial:
    return Trial(samples, tmp_path)


def started(trial: Trial, content: bytes, *, percent: float, factor: float = 1.0) -> str:
    """Publish and release a crafted canary, and return its version."""
    version = crafted.publish(trial, content, factor=factor)
    trial.release_manager.canary("price", version=version, percent=percent)
    return version


class TestShare:
    @pytest.mark.costly
    async def test_the_canary_always_serves_and_bills_the_same_accounts(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        canary = started(trial, crafted.weighted(2.0), percent=30, factor=2.0)
        accounts = [str(uuid.uuid4()) for _ in range(40)]
        versions: dict[str, str] = {}

        async with trial.serving(settings) as client:
            for account in accounts:
                bearer = token(neighbours, account)
                first, again = await ask(client, bearer), await ask(client, bearer)
                assert version_of(first) == version_of(again)
                chosen = rollout_bucket(account, model="price", version=canary) < 30
                assert version_of(first) == (canary if chosen else trial.live_version)
                assert first.json()["predictions"] == [10.0 if chosen else 5.0]
                versions[first.headers["x-usage-event"]] = version_of(first)

        assert set(versions.values()) == {canary, trial.live_version}
        billed = {id: neighbours.charged[id]["data"]["version"] for id in versions}
        assert billed == versions

    async def test_it_starts_and_ends_with_releases_without_a_restart(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        bearer = token(neighbours)
        async with trial.serving(settings) as client:
            assert version_of(await ask(client, bearer)) == trial.live_version

            canary = started(trial, crafted.weighted(), percent=100)
            await eventually(lambda: serves(client, trial.current().number))
            assert version_of(await ask(client, bearer)) == canary
            assert await metric(client, PERCENT, version=canary) == 100

            trial.release_manager.canary("price", version=None)
            await eventually(lambda: serves(client, trial.current().number))
            assert version_of(await ask(client, bearer)) == trial.live_version
            assert await metric(client, PERCENT) == 0

            trial.release_manager.release("price", version=canary)
            await eventually(lambda: serves(client, trial.current().number))
            assert version_of(await ask(client, bearer)) == canary

    async def test_a_request_that_names_a_version_gets_that_version(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        started(trial, crafted.weighted(), percent=100)
        path = f"/v2/models/price/versions/{trial.live_version}/infer"
        tensor = {"name": "features", "datatype": "FP64", "shape": [1, 2], "data": [2, 3]}
        headers = {"Authorization": f"Bearer {token(neighbours)}"}

        async with trial.serving(settings) as client:
            answer = await client.post(path, json={"inputs": [tensor]}, headers=headers)

        assert version_of(answer) == trial.live_version

    async def test_v2_responses_name_the_canarys_version(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        canary = started(trial, crafted.weighted(), percent=100)
        tensor = {"name": "features", "datatype": "FP64", "shape": [1, 2], "data": [2, 3]}
        headers = {"Authorization": f"Bearer {token(neighbours)}"}

        async with trial.serving(settings) as client:
            answer = await client.post(
                "/v2/models/price/infer", json={"inputs": [tensor]}, headers=headers
            )

        assert version_of(answer) == answer.json()["model_version"] == canary

    async def test_a_request_from_before_a_release_is_not_sent_to_its_canary(
        self, trial: Trial
    ) -> None:
        canaries = Canaries(
            trial.table, trial.loader, trial.release_manager, RolloutMetrics(trial.metrics)
        )
        first = started(trial, crafted.weighted(), percent=100)
        await trial.watcher.poll()
        before = trial.table.live("price").manifest
        assert canaries.trial(before) is not None

        trial.release_manager.release("price", version=first)
        trial.release_manager.canary("price", version=trial.live_version, percent=100)
        await trial.watcher.poll()

        assert canaries.trial(before) is None
        assert canaries.trial(trial.table.live("price").manifest) is not None


class TestRefused:
    async def test_a_canary_with_wrong_recorded_answers_is_rolled_back_before_any_request(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        canary = crafted.publish(trial, crafted.weighted(3.0), factor=1.0)
        trial.release_manager.canary("price", version=canary, percent=100)

        async with trial.serving(settings) as client:
            assert version_of(await ask(client, token(neighbours))) == trial.live_version
            await eventually(lambda: trial.current().action == "rollback")

        record = trial.current()
        assert (record.version, record.canary) == (trial.live_version, None)
        assert "does not answer as recorded" in record.reason

    async def test_an_untrusted_canary_gets_no_requests_and_is_not_rolled_back(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        canary = started(trial, crafted.weighted(), percent=100)
        signature = trial.folder / "price/versions" / canary / "manifest.sig"
        signature.write_bytes(b"\0" * 64)

        async with trial.serving(settings) as client:
            assert version_of(await ask(client, token(neighbours))) == trial.live_version
            refused = await metric(
                client, "tollgate_model_versions_refused_total", reason="signature"
            )

        assert refused == 1
        assert trial.current().action == "canary"

    async def test_a_store_failure_delays_the_canary_but_not_the_release(
        self, trial: Trial
    ) -> None:
        canary = started(trial, crafted.weighted(), percent=100)
        served = trial.folder / "price/versions" / canary / "model.onnx"
        aside = served.rename(served.with_name("aside"))
        served.symlink_to(served)  # a symlink loop, which no system can read

        assert not await trial.watcher.poll()
        assert trial.table.live("price").manifest.version == trial.live_version
        assert trial.table.live("price").canary is None

        served.unlink()
        aside.rename(served)
        assert await trial.watcher.poll()
        assert trial.table.live("price").canary is not None


class TestJudgement:
    async def test_the_live_version_answers_failed_canary_requests_and_bills_once(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        started(trial, crafted.failing_below_zero(), percent=100)
        account = str(uuid.uuid4())

        async with trial.serving(settings) as client:
            answer = await ask(client, token(neighbours, account), row=BAD_ROW)

            assert version_of(answer) == trial.live_version
            assert answer.json()["predictions"] == [1.0]
            failed = await metric(client, "tollgate_canary_requests_total", outcome="failed")

        assert failed == 1
        assert neighbours.charged_to(account) == [answer.headers["x-usage-event"]]

    async def test_explanations_come_from_the_canary_unless_it_fails_and_count_for_none(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        canary = started(trial, crafted.failing_below_zero(), percent=100)
        headers = {"Authorization": f"Bearer {token(neighbours)}"}

        async with trial.serving(settings) as client:
            good, bad = [
                await client.post(EXPLAIN, json={"instances": [row]}, headers=headers)
                for row in (GOOD_ROW, BAD_ROW)
            ]
            counted = await metric(client, "tollgate_canary_requests_total")

        assert (version_of(good), version_of(bad)) == (canary, trial.live_version)
        assert (good.json()["predictions"], bad.json()["predictions"]) == ([5.0], [1.0])
        assert counted == 0

    async def test_a_request_that_both_versions_fail_does_not_count_against_the_canary(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        started(trial, crafted.failing_below_zero(), percent=100)
        huge = [3e38, 3e38]

        async with trial.serving(settings) as client:
            answer = await ask(client, token(neighbours), row=huge)
            failed = await metric(client, "tollgate_canary_requests_total", outcome="failed")

        assert (answer.status_code, failed) == (422, 0)

    @pytest.mark.costly
    async def test_a_slow_canary_is_stopped_and_rolled_back(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        canary = started(trial, crafted.slow(), percent=50)
        slow = account_of(canary, chosen=True, percent=50)
        quick = account_of(canary, chosen=False, percent=50)

        async with trial.serving(settings) as client:
            for account in (quick, slow):
                bearer = token(neighbours, account)
                for _ in range(MIN_SAMPLE):
                    await ask(client, bearer)
            await eventually(lambda: trial.current().action == "rollback")
            assert version_of(await ask(client, token(neighbours, slow))) == trial.live_version

        assert "at the 90th percentile" in trial.current().reason

    async def test_a_bad_canary_is_stopped_even_if_the_rollback_cannot_be_written(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        started(trial, crafted.failing_below_zero(), percent=100)
        bearer = token(neighbours)
        releases = trial.folder / "price/releases"

        async with trial.serving(settings) as client:
            number = trial.current().number
            for _ in range(MIN_SAMPLE - 1):
                await ask(client, bearer, row=BAD_ROW)
            aside = releases.rename(releases.with_name("aside"))
            releases.symlink_to(releases)
            await ask(client, bearer, row=BAD_ROW)
            await eventually(lambda: _counted(client, "tollgate_canary_rollback_failures_total"))
            assert version_of(await ask(client, bearer)) == trial.live_version
            releases.unlink()
            aside.rename(releases)

        assert trial.current().number == number


async def _counted(client: httpx.AsyncClient, name: str) -> bool:
    return await metric(client, name) > 0


class TestManyProcesses:
    @pytest.mark.costly
    async def test_three_processes_write_one_rollback(
        self, trial: Trial, settings: InferenceSettings, neighbours: Neighbours
    ) -> None:
        canary = started(trial, crafted.failing_below_zero(), percent=30)
        number = trial.current().number
        account = account_of(canary, chosen=True, percent=30)
        bearer = token(neighbours, account)

        async with AsyncExitStack() as stack:
            urls = await asyncio.gather(
                *(
                    stack.enter_async_context(process(trial.settings(settings)))
                    for _ in range(PROCESSES)
                )
            )
            async with httpx.AsyncClient(trust_env=False) as client:
                answers = await asyncio.gather(
                    *(
                        client.post(
                            f"{url}/v1/models/price:predict",
                            json={"instances": [BAD_ROW]},
                            headers={"Authorization": f"Bearer {bearer}"},
                            timeout=30,
                        )
                        for url in urls
                        for _ in range(MIN_SAMPLE + 10)
                    )
                )
                assert {answer.status_code for answer in answers} == {200}
                for url in urls:
                    await eventually(partial(serves, client, number + 1, url=url))
                stopped = [await metric(client, STOPPED, url=url) for url in urls]

        record = trial.current()
        assert trial.store.list_releases("price") == list(range(1, number + 2))
        assert (record.action, record.version, record.canary) == (
            "rollback",
            trial.live_version,
            None,
        )
        assert record.by.startswith("inference@")
        assert f"of {MIN_SAMPLE} requests" in record.reason
        assert max(stopped) == 1

    def test_on_a_bucket_the_second_rollback_of_a_release_writes_nothing(
        self, trial: Trial, bucket_url: str
    ) -> None:
        filesystem, root = open_filesystem(f"{bucket_url}/models")
        for path in trial.folder.rglob("*"):
            if path.is_file():
                filesystem.pipe_file(f"{root}/{path.relative_to(trial.folder)}", path.read_bytes())
        store = ModelStore(f"{bucket_url}/models")
        first, second = (
            ReleaseManager(store=store, trusted=trial.trusted, by=f"inference@{host}")
            for host in "ab"
        )
        [canary] = set(trial.store.list_versions("price")) - {trial.live_version}
        number = first.canary("price", version=canary, percent=10).live.number

        decisions = [
            each.roll_back("price", expected_release=number, reason="bad")
            for each in (first, second)
        ]

        assert [decision.written for decision in decisions] == [True, False]
        assert [decision.live.by for decision in decisions] == ["inference@a"] * 2
        assert decisions[0].live.version == trial.live_version
