"""Drops with unusual ends are dispatched once; a sweep finds lost drops."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from functions.common.pipeline import Pipeline
from functions.common.settings import PipelineSettings
from functions.on_data_arrival.sweep import sweep
from harness.cloud import Cloud, Function, new_cloud
from harness.gcs import Emulator
from harness.http_servers import BlockedCall, Response


@pytest.fixture(scope="module")
def swept(
    gcs: Emulator, tmp_path_factory: pytest.TempPathFactory, bundles: Path
) -> Iterator[Cloud]:
    """Yield servers for only these tests, because a sweep checks every model."""
    with new_cloud(gcs, tmp_path_factory.mktemp("swept"), bundles) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def function(swept: Cloud) -> Function:
    return swept.function()


def a_sweep() -> dict[str, Any]:
    """Return the event that Cloud Scheduler sends."""
    return {
        "specversion": "1.0",
        "id": f"sweep-{uuid4().hex}",
        "type": "tollgate.pipelines.sweep.v1",
        "source": "//cloudscheduler.googleapis.com",
        "data": {},
    }


def dispatched(cloud: Cloud, model: str) -> list[str]:
    """Return the dispatched objects, relative to the model's folder."""
    payloads = [one["client_payload"] for one in cloud.github.dispatches_of(model)]
    return [payload["name"].removeprefix(f"{model}/") for payload in payloads]


class TestOddEnds:
    def test_the_newest_part_is_deleted_before_its_event_is_handled(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        part, mistake = (swept.put(f"{model}/{name}.csv") for name in ("part", "rest"))
        assert function.post(part) == 200
        swept.delete(f"{model}/rest.csv")

        assert [function.post(mistake), function.post(part)] == [200, 200]

        assert dispatched(swept, model) == ["part.csv"]

    def test_the_newest_part_is_emptied_before_its_event_is_handled(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        part, rest = (swept.put(f"{model}/{name}.csv") for name in ("part", "rest"))
        assert function.post(part) == 200
        empty = swept.put(f"{model}/rest.csv", b"")

        assert [function.post(event) for event in (rest, empty, part)] == [200] * 3

        assert dispatched(swept, model) == ["part.csv"]

    def test_the_marker_is_deleted_before_its_event_is_handled(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        part = swept.put(f"{model}/part.csv")
        marker = swept.put(f"{model}/_SUCCESS", b"")
        assert function.post(part) == 200
        swept.delete(f"{model}/_SUCCESS")

        assert function.post(marker) == 200

        assert dispatched(swept, model) == ["part.csv"]

    def test_a_marker_before_its_parts_starts_one_training(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        marker = swept.put(f"{model}/_SUCCESS", b"")
        waiting = function.post_aside(marker)
        parts = [swept.put(f"{model}/part-{number}.csv") for number in range(3)]
        others = [function.post_aside(part) for part in parts]

        assert [answer() for answer in (waiting, *others)] == [200] * 4

        assert dispatched(swept, model) == ["part-2.csv"]

    def test_changed_settings_are_part_of_a_drop(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        first = swept.put(f"{model}/dataset.json", b'{"target": "y"}')
        assert function.post(first) == 200
        assert dispatched(swept, model) == []
        assert function.post(swept.put(f"{model}/part.csv")) == 200

        changed = swept.put(f"{model}/dataset.json", b'{"target": "x"}')

        assert function.post(changed) == 200
        assert dispatched(swept, model) == ["part.csv", "dataset.json"]

    def test_a_marker_that_is_written_twice_while_github_is_busy_starts_one_training(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        swept.put(f"{model}/part.csv")
        first = swept.put(f"{model}/_SUCCESS", b"")
        swept.github.script = [Response(403, headers={"retry-after": "3"})]
        waiting = function.post_aside(first)
        time.sleep(0.2)
        second = swept.put(f"{model}/_SUCCESS", b"")

        assert (function.post(second), waiting()) == (200, 200)

        [document] = swept.github.dispatches_of(model)
        assert document["client_payload"]["generation"] == second["data"]["generation"]

    def test_an_event_delivered_twice_while_github_is_busy_starts_one_training(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        event = swept.put(f"{model}/_SUCCESS", b"")
        swept.github.script = [Response(403, headers={"retry-after": "3"})]
        swept.github.forgets_runs = True  # GitHub lists a run some seconds after it began
        waiting = function.post_aside(event)
        time.sleep(0.2)

        statuses = (function.post(event), waiting())
        swept.github.forgets_runs = False

        assert statuses == (200, 200)
        assert len(swept.github.dispatches_of(model)) == 1


class TestSweeps:
    def test_a_drop_without_any_event_is_found_once(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        swept.put(f"{model}/part-1.csv")
        swept.put(f"{model}/part-2.csv")
        time.sleep(1)

        assert [function.post(a_sweep()), function.post(a_sweep())] == [200, 200]

        assert dispatched(swept, model) == ["part-2.csv"]

    def test_a_dispatched_drop_is_not_found_after_its_end_is_deleted(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        swept.put(f"{model}/part.csv")
        assert function.post(swept.put(f"{model}/_SUCCESS", b"")) == 200
        swept.delete(f"{model}/_SUCCESS")
        time.sleep(1)

        assert function.post(a_sweep()) == 200

        assert dispatched(swept, model) == ["_SUCCESS"]

    def test_an_event_after_the_sweep_starts_nothing(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        event = swept.put(f"{model}/part.csv")
        time.sleep(1)
        assert function.post(a_sweep()) == 200

        assert function.post(event) == 200

        assert dispatched(swept, model) == ["part.csv"]

    def test_a_sweep_and_an_event_at_the_same_time_start_one_training(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        event = swept.put(f"{model}/part.csv")
        blocked = BlockedCall()
        swept.github.script = [(True, blocked)]
        time.sleep(1)
        waiting = function.post_aside(event)
        blocked.arrived()
        sweeping = function.post_aside(a_sweep())
        blocked.release()

        assert (waiting(), sweeping()) == (500, 200)

        assert len(swept.github.dispatches_of(model)) == 1

    def test_the_next_sweep_continues_after_a_killed_function(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        swept.put(f"{model}/part.csv")
        time.sleep(1)
        for kind in ("claims", "done"):
            blocked = swept.proxy.block(kind)
            waiting = function.post_aside(a_sweep())
            blocked.arrived()
            function.die()
            blocked.release()
            assert waiting() == 0

        assert function.post(a_sweep()) == 200

        assert dispatched(swept, model) == ["part.csv"]

    def test_data_with_only_unsupported_names_is_reported_by_every_sweep(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        swept.put(f"{model}/part 1.csv")

        assert function.post(a_sweep()) == 200

        [line] = function.lines(f"{model}/part 1.csv#")
        assert (line["severity"], line["decision"]) == ("WARNING", "unsupported_name")
        swept.delete(f"{model}/part 1.csv")

    @pytest.mark.costly
    def test_it_can_be_called_from_python_and_returns_its_decisions(
        self, swept: Cloud, monkeypatch: pytest.MonkeyPatch, model: str
    ) -> None:
        event = swept.put(f"{model}/part.csv")
        for name, value in swept.settings().items():
            monkeypatch.setenv(name, value)
        time.sleep(1)

        with closing(Pipeline(PipelineSettings.load())) as pipeline:
            first, second = (
                {each.model: each for each in sweep(pipeline)}[model] for _ in range(2)
            )

        identity = f"{swept.bucket}/{model}/part.csv#{event['data']['generation']}"
        assert (first.decision, first.drop) == ("dispatched", identity)
        assert (second.decision, second.reason) == ("idle", "The drop was already dispatched.")
        assert len(swept.github.dispatches_of(model)) == 1

    def test_a_wrong_configuration_is_an_error_in_a_sweep_too(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        swept.put(f"{model}/part.csv")
        time.sleep(1)
        swept.github.script = [Response(404)]

        assert function.post(a_sweep()) == 500

        lines = function.lines(f'"model": "{model}"')
        assert (lines[0]["severity"], lines[0]["decision"]) == ("ERROR", "blocked")
        assert function.post(a_sweep()) == 200
        assert dispatched(swept, model) == ["part.csv"]

    @pytest.mark.costly
    def test_a_model_that_cannot_be_swept_does_not_block_the_others(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        for name in (f"{model}-1", f"{model}-2"):
            swept.put(f"{name}/part.csv")
        time.sleep(1)
        swept.github.script = [Response(500)]

        assert function.post(a_sweep()) == 500

        both = [*dispatched(swept, f"{model}-1"), *dispatched(swept, f"{model}-2")]
        assert both == ["part.csv"]
        assert function.post(a_sweep()) == 200

    @pytest.mark.costly
    def test_the_next_sweep_retries_a_refused_dispatch(
        self, swept: Cloud, function: Function, model: str
    ) -> None:
        swept.put(f"{model}/part.csv")
        time.sleep(1)
        swept.github.script = [Response(500)]

        assert [function.post(a_sweep()), function.post(a_sweep())] == [500, 200]

        assert dispatched(swept, model) == ["part.csv"]
