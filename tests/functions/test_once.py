"""One run per object and generation: repeats, deaths between steps, GitHub's moods."""

import time

import pytest

from tests.functions.conftest import Function, World
from tests.functions.servers import Answer, Held


class TestRepeats:
    def test_an_event_delivered_again_starts_nothing(
        self, shared: World, arrivals: Function, model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")

        assert [arrivals.post(event) for _ in range(3)] == [200] * 3

        assert shared.github.calls_of(model) == 1

    def test_events_delivered_at_the_same_time_start_one_run(
        self, world: World, model: str
    ) -> None:
        function = world.function(PIPELINE_CLAIM_SECONDS="6")
        event = world.put(f"{model}/_SUCCESS", b"")

        waiting = [function.post_aside(event) for _ in range(4)]

        assert [answer() for answer in waiting] == [200] * 4
        assert world.github.calls_of(model) == 1

    def test_two_processes_start_one_run(self, world: World, model: str) -> None:
        functions = [world.function(PIPELINE_CLAIM_SECONDS="6") for _ in range(2)]
        event = world.put(f"{model}/_SUCCESS", b"")

        waiting = [function.post_aside(event) for function in functions]

        assert [answer() for answer in waiting] == [200] * 2
        assert world.github.calls_of(model) == 1

    def test_an_older_generation_is_ignored_and_a_new_one_is_not(
        self, shared: World, arrivals: Function, model: str
    ) -> None:
        older = shared.put(f"{model}/_SUCCESS", b"")
        newer = shared.put(f"{model}/_SUCCESS", b"")

        assert [arrivals.post(newer), arrivals.post(older)] == [200, 200]

        told = [one["client_payload"]["generation"] for one in shared.github.dispatches_of(model)]
        assert told == [newer["data"]["generation"]]
        assert shared.recorded("claims", older) == []


class TestDeaths:
    """The function is killed, started again, and the event delivered again."""

    def test_before_the_claim(self, world: World, model: str) -> None:
        held = world.door.hold("claims")

        self._die_and_recover(world, model, held)

        assert world.github.calls_of(model) == 1

    def test_between_the_claim_and_the_dispatch(self, world: World, model: str) -> None:
        held = Held()
        world.github.script = [held]

        event = self._die_and_recover(world, model, held)

        assert len(world.github.dispatches_of(model)) == 1
        assert len(world.recorded("claims", event)) == 1

    def test_after_the_dispatch_was_taken(self, world: World, model: str) -> None:
        held = Held()
        world.github.script = [(True, held)]

        self._die_and_recover(world, model, held)

        assert world.github.calls_of(model) == 1

    def test_before_the_done_marker(self, world: World, model: str) -> None:
        held = world.door.hold("done")

        self._die_and_recover(world, model, held)

        assert world.github.calls_of(model) == 1

    def test_in_the_quiet_time(self, world: World, model: str) -> None:
        function = world.function(PIPELINE_QUIET_SECONDS="3")
        event = world.put(f"{model}/part.csv")
        waiting = function.post_aside(event)
        time.sleep(0.5)
        function.kill()
        assert (waiting(), world.github.asked) == (0, [])
        function.start()

        assert function.post(event) == 200

        assert world.github.calls_of(model) == 1

    def test_where_runs_may_not_be_read_it_is_dispatched_again(
        self, world: World, model: str
    ) -> None:
        world.github.runs_status = 403
        held = world.door.hold("done")

        self._die_and_recover(world, model, held)

        first, second = world.github.dispatches_of(model)
        assert first == second

    def _die_and_recover(self, world: World, model: str, held: Held) -> dict[str, object]:
        function = world.function()
        event = world.put(f"{model}/_SUCCESS", b"")
        waiting = function.post_aside(event)
        held.arrived()
        function.kill()
        held.let_go()
        assert waiting() == 0

        function.start()

        assert function.post(event) == 200
        assert len(world.recorded("done", event)) == 1
        return event


class TestGitHub:
    @pytest.mark.parametrize("status", [401, 422, 500])
    def test_a_refusal_is_retried_by_a_redelivery(
        self, shared: World, arrivals: Function, model: str, status: int
    ) -> None:
        shared.github.script = [Answer(status)]
        event = shared.put(f"{model}/_SUCCESS", b"")

        assert [arrivals.post(event), arrivals.post(event)] == [500, 200]

        assert len(shared.github.dispatches_of(model)) == 1

    def test_a_dispatch_that_was_taken_and_answered_502_is_not_sent_again(
        self, shared: World, arrivals: Function, model: str
    ) -> None:
        shared.github.script = [(True, Answer(502))]
        event = shared.put(f"{model}/_SUCCESS", b"")

        assert [arrivals.post(event), arrivals.post(event)] == [500, 200]

        assert shared.github.calls_of(model) == 1
        assert len(shared.recorded("done", event)) == 1

    def test_it_waits_as_long_as_it_is_told(
        self, shared: World, arrivals: Function, model: str
    ) -> None:
        shared.github.script = [Answer(429, headers={"Retry-After": "2"})]
        event = shared.put(f"{model}/_SUCCESS", b"")

        assert arrivals.post(event) == 200

        earlier, later = shared.github.times[-2:]
        assert later - earlier >= 2
        assert len(shared.github.dispatches_of(model)) == 1

    @pytest.mark.parametrize(
        "busy",
        [
            Answer(403, headers={"Retry-After": "100"}),
            Answer(403, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4000000000"}),
            Answer(429),
            Answer(403, b'{"message": "You have exceeded a secondary rate limit."}'),
        ],
    )
    def test_what_would_last_too_long_is_left_to_a_redelivery_and_it_is_not_asked_before(
        self, world: World, model: str, busy: Answer
    ) -> None:
        function = world.function()
        world.github.script = [busy]
        event = world.put(f"{model}/_SUCCESS", b"")

        assert [function.post(event), function.post(event)] == [500, 500]

        assert len(world.github.asked) == 1

    def test_it_gives_up_to_a_dead_letter_with_an_error_line(
        self, world: World, model: str
    ) -> None:
        function = world.function(PIPELINE_GIVE_UP_SECONDS="0.01")
        world.github.script = [Answer(500)]
        event = world.put(f"{model}/_SUCCESS", b"")

        assert [function.post(event), function.post(event)] == [200, 200]

        [letter] = world.recorded("dead", event)
        assert (letter["model"], letter["name"]) == (model, f"{model}/_SUCCESS")
        assert "GitHub answered 500" in letter["reason"]
        assert [line["severity"] for line in function.lines("Given up")] == ["ERROR"]
        assert (world.github.calls_of(model), world.recorded("done", event)) == (1, [])

    def test_storage_that_is_down_is_retried_by_a_redelivery(
        self, world: World, model: str
    ) -> None:
        function = world.function()
        event = world.put(f"{model}/_SUCCESS", b"")
        world.door.down = True
        refused = function.post(event)
        world.door.down = False

        assert (refused, function.post(event)) == (500, 200)
        assert world.github.calls_of(model) == 1

    def test_writes_are_a_second_apart(self, shared: World, arrivals: Function, model: str) -> None:
        events = [shared.put(f"{model}-{number}/_SUCCESS", b"") for number in range(2)]

        assert [answer() for answer in [arrivals.post_aside(event) for event in events]] == [
            200
        ] * 2

        earlier, later = shared.github.times[-2:]
        assert later - earlier >= 1


def test_a_redelivery_leaves_an_event_to_the_delivery_at_work_on_it(
    world: World, model: str
) -> None:
    function = world.function(PIPELINE_CLAIM_SECONDS="3")
    held = Held()
    world.github.script = [(True, held)]
    event = world.put(f"{model}/_SUCCESS", b"")
    at_work = function.post_aside(event)
    held.arrived()
    waiting = function.post_aside(event)
    time.sleep(0.5)
    held.let_go()

    assert (at_work(), waiting()) == (500, 200)
    assert world.github.calls_of(model) == 1
