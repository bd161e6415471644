"""The function is killed between any two steps, and the event is delivered again."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness.cloud import Cloud, Function
from harness.http_servers import BlockedCall, Response


@pytest.fixture
def mortal(shared: Cloud, arrivals: Function) -> Iterator[Function]:
    """Yield on_data_arrival, and restore the fake GitHub after the test."""
    yield arrivals
    shared.github.runs_status, shared.github.script = 200, []


def kill_at(blocked: BlockedCall, function: Function, event: dict[str, Any]) -> None:
    """Deliver an event, and kill the function while its call is blocked."""
    waiting = function.post_aside(event)
    blocked.arrived()
    function.die()
    blocked.release()
    assert waiting() == 0


class TestOneRun:
    def test_killed_before_the_claim(self, shared: Cloud, mortal: Function, model: str) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")
        kill_at(shared.proxy.block("claims"), mortal, event)

        assert mortal.post(event) == 200

        assert shared.github.calls_of(model) == 1
        assert len(shared.find_records("done", event)) == 1

    @pytest.mark.costly
    def test_killed_with_its_server_between_the_claim_and_the_dispatch(
        self, cloud: Cloud, model: str
    ) -> None:
        blocked = BlockedCall()
        cloud.github.script = [blocked]
        function = cloud.function()
        event = cloud.put(f"{model}/_SUCCESS", b"")
        waiting = function.post_aside(event)
        blocked.arrived()
        function.kill()
        blocked.release()
        assert waiting() == 0
        function.start()

        assert function.post(event) == 200

        assert len(cloud.github.dispatches_of(model)) == 1
        assert len(cloud.find_records("claims", event)) == 1
        assert len(cloud.find_records("done", event)) == 1

    def test_killed_after_the_dispatch_was_accepted(
        self, shared: Cloud, mortal: Function, model: str
    ) -> None:
        blocked = BlockedCall()
        shared.github.script = [(True, blocked)]
        event = shared.put(f"{model}/_SUCCESS", b"")
        kill_at(blocked, mortal, event)

        assert mortal.post(event) == 200

        assert shared.github.calls_of(model) == 1
        assert len(shared.find_records("done", event)) == 1

    def test_killed_before_the_done_record_and_again_while_searching_for_the_run(
        self, shared: Cloud, mortal: Function, model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")
        kill_at(shared.proxy.block("done"), mortal, event)
        shared.github.block_runs = blocked = BlockedCall()
        kill_at(blocked, mortal, event)

        assert [mortal.post(event), mortal.post(event)] == [200, 200]

        assert shared.github.calls_of(model) == 1
        assert len(shared.find_records("done", event)) == 1

    @pytest.mark.parametrize("step", ["o", "claims", "done", "dispatched"])
    def test_killed_at_a_step_of_a_drop_whose_newest_part_was_deleted(
        self, shared: Cloud, mortal: Function, model: str, step: str
    ) -> None:
        part, mistake = (shared.put(f"{model}/{name}.csv") for name in ("part", "rest"))
        assert mortal.post(part) == 200  # it leaves the drop to the newer one
        shared.delete(f"{model}/rest.csv")
        kill_at(shared.proxy.block(step), mortal, mistake)

        assert [mortal.post(mistake), mortal.post(part)] == [200, 200]

        [document] = shared.github.dispatches_of(model)
        assert document["client_payload"]["name"] == f"{model}/part.csv"
        assert len(shared.find_records("done", part)) == 1
        assert len(shared.find_records("dispatched", part)) == 1

    def test_killed_in_the_quiet_time(self, shared: Cloud, mortal: Function, model: str) -> None:
        event = shared.put(f"{model}/part.csv")
        waiting = mortal.post_aside(event)
        time.sleep(0.2)
        mortal.die()
        assert (waiting(), shared.github.calls_of(model)) == (0, 0)

        assert mortal.post(event) == 200

        assert shared.github.calls_of(model) == 1

    def test_killed_while_waiting_for_a_rate_limit(
        self, shared: Cloud, mortal: Function, model: str
    ) -> None:
        shared.github.script = [Response(429, headers={"Retry-After": "3"})]
        event = shared.put(f"{model}/_SUCCESS", b"")
        waiting = mortal.post_aside(event)
        while not shared.github.calls_of(model):
            time.sleep(0.02)
        mortal.die()
        assert (waiting(), shared.github.dispatches_of(model)) == (0, [])

        assert mortal.post(event) == 200

        assert len(shared.github.dispatches_of(model)) == 1

    def test_without_permission_to_read_runs_it_is_dispatched_again(
        self, shared: Cloud, mortal: Function, model: str
    ) -> None:
        shared.github.runs_status = 403
        event = shared.put(f"{model}/_SUCCESS", b"")
        kill_at(shared.proxy.block("done"), mortal, event)

        assert mortal.post(event) == 200

        first, second = shared.github.dispatches_of(model)
        assert first == second


class TestNoRun:
    def test_a_generation_that_was_replaced_while_the_function_was_dead_starts_nothing(
        self, shared: Cloud, mortal: Function, model: str
    ) -> None:
        blocked = BlockedCall()
        shared.github.script = [blocked]
        older = shared.put(f"{model}/_SUCCESS", b"")
        kill_at(blocked, mortal, older)
        newer = shared.put(f"{model}/_SUCCESS", b"")

        assert [mortal.post(newer), mortal.post(older), mortal.post(newer)] == [200] * 3

        generations = [
            one["client_payload"]["generation"] for one in shared.github.dispatches_of(model)
        ]
        assert generations == [newer["data"]["generation"]]

    @pytest.mark.parametrize(
        "forged", [{"name": "{}/part.csv"}, {"generation": "1"}], ids=["name", "generation"]
    )
    def test_a_forged_event_after_a_death_is_acknowledged(
        self, shared: Cloud, mortal: Function, model: str, forged: dict[str, str]
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")
        event["data"] |= {key: value.format(model) for key, value in forged.items()}
        kill_at(shared.proxy.block("o"), mortal, event)

        assert mortal.post(event) == 200

        assert (shared.github.calls_of(model), shared.find_records("claims", event)) == (0, [])

    def test_an_ignored_event_after_a_death_is_acknowledged(
        self, shared: Cloud, mortal: Function, model: str
    ) -> None:
        good = shared.put(f"{model}/_SUCCESS", b"")
        other = good | {"id": "forged", "data": good["data"] | {"bucket": "another-bucket"}}
        large = good | {"id": "large", "data": good["data"] | {"name": "n" * 100_000}}
        kill_at(shared.proxy.block("claims"), mortal, good)

        assert [mortal.post(event) for event in (other, large, good)] == [200] * 3

        assert shared.github.calls_of(model) == 1
