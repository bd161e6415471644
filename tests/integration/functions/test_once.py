"""One run per object and generation, despite redeliveries and GitHub's failures."""

import time

import pytest

from harness.cloud import Cloud, Function
from harness.http_servers import BlockedCall, Response
from harness.waiting import eventually


@pytest.fixture(scope="module")
def pair(shared: Cloud) -> tuple[Function, Function]:
    """Start two processes of on_data_arrival with a long claim time."""
    one, other = (shared.function(PIPELINE_CLAIM_SECONDS="6") for _ in range(2))
    return one, other


class TestRepeats:
    def test_an_event_delivered_again_starts_nothing(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")

        assert [arrivals.post(event) for _ in range(3)] == [200] * 3

        assert shared.github.calls_of(model) == 1

    def test_events_delivered_at_the_same_time_start_one_run(
        self, shared: Cloud, pair: tuple[Function, Function], model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")

        waiting = [pair[0].post_aside(event) for _ in range(4)]

        assert [answer() for answer in waiting] == [200] * 4
        assert shared.github.calls_of(model) == 1

    def test_two_processes_start_one_run(
        self, shared: Cloud, pair: tuple[Function, Function], model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")

        waiting = [function.post_aside(event) for function in pair]

        assert [answer() for answer in waiting] == [200] * 2
        assert shared.github.calls_of(model) == 1

    def test_a_delivery_waits_for_another_one_of_the_same_event(
        self, shared: Cloud, pair: tuple[Function, Function], model: str
    ) -> None:
        blocked = BlockedCall()
        shared.github.script = [(True, blocked)]
        event = shared.put(f"{model}/_SUCCESS", b"")
        at_work = pair[0].post_aside(event)
        blocked.arrived()
        waiting = pair[1].post_aside(event)
        time.sleep(0.5)
        blocked.release()

        assert (at_work(), waiting()) == (500, 200)
        assert shared.github.calls_of(model) == 1

    def test_an_older_generation_is_ignored_and_a_new_one_is_not(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        older = shared.put(f"{model}/_SUCCESS", b"")
        newer = shared.put(f"{model}/_SUCCESS", b"")

        assert [arrivals.post(newer), arrivals.post(older)] == [200, 200]

        generations = [
            one["client_payload"]["generation"] for one in shared.github.dispatches_of(model)
        ]
        assert generations == [newer["data"]["generation"]]
        assert shared.find_records("claims", older) == []


@pytest.fixture(scope="module")
def hasty(shared: Cloud) -> Function:
    """Start on_data_arrival so that it gives up at the first failure."""
    return shared.function(PIPELINE_GIVE_UP_SECONDS="0.01")


class TestGitHub:
    @pytest.mark.parametrize("status", [401, 422, 500])
    def test_a_refusal_is_retried_by_a_redelivery(
        self, shared: Cloud, arrivals: Function, model: str, status: int
    ) -> None:
        shared.github.script = [Response(status)]
        event = shared.put(f"{model}/_SUCCESS", b"")

        assert [arrivals.post(event), arrivals.post(event)] == [500, 200]

        assert len(shared.github.dispatches_of(model)) == 1

    def test_an_accepted_dispatch_with_a_502_response_is_not_sent_again(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        shared.github.script = [(True, Response(502))]
        event = shared.put(f"{model}/_SUCCESS", b"")

        assert [arrivals.post(event), arrivals.post(event)] == [500, 200]

        assert shared.github.calls_of(model) == 1
        assert len(shared.find_records("done", event)) == 1

    def test_it_waits_as_long_as_github_requests(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        shared.github.script = [Response(429, headers={"Retry-After": "2"})]
        event = shared.put(f"{model}/_SUCCESS", b"")

        assert arrivals.post(event) == 200

        earlier, later = shared.github.times[-2:]
        assert later - earlier >= 2
        assert len(shared.github.dispatches_of(model)) == 1

    def test_two_processes_that_both_wait_for_github_start_runs_with_one_key(
        self, shared: Cloud, model: str
    ) -> None:
        one, other = (shared.function(PIPELINE_CLAIM_SECONDS="0.1") for _ in range(2))
        in_flight = BlockedCall()
        busy = Response(429, headers={"Retry-After": "2"})
        shared.github.script = [busy, busy, (True, in_flight)]
        event = shared.put(f"{model}/_SUCCESS", b"")

        waiting = [function.post_aside(event) for function in (one, other)]
        in_flight.arrived()  # accepted, but its response is still on the way
        eventually(lambda: len(shared.github.dispatches_of(model)) == 2)
        in_flight.release()

        assert sorted(answer() for answer in waiting) == [200, 500]
        assert one.post(event) == 200
        first, second = shared.github.dispatches_of(model)
        assert first == second  # so `train --once` makes the second run a no-op

    @pytest.mark.parametrize(
        "busy",
        [
            Response(403, headers={"Retry-After": "100"}),
            Response(
                403, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4000000000"}
            ),
            Response(429),
            Response(403, b'{"message": "You have exceeded a secondary rate limit."}'),
        ],
    )
    def test_a_long_rate_limit_is_left_to_a_redelivery_without_another_call(
        self, shared: Cloud, arrivals: Function, model: str, busy: Response
    ) -> None:
        shared.github.script = [busy]
        event = shared.put(f"{model}/_SUCCESS", b"")
        before = len(shared.github.requests)

        assert [arrivals.post(event), arrivals.post(event)] == [500, 500]

        assert len(shared.github.requests) == before + 1
        arrivals.die()  # its successor may call GitHub at once

    def test_it_gives_up_with_a_dead_letter_and_an_error_line(
        self, shared: Cloud, hasty: Function, model: str
    ) -> None:
        shared.github.script = [Response(500)]
        event = shared.put(f"{model}/_SUCCESS", b"")

        assert [hasty.post(event), hasty.post(event)] == [200, 200]

        [letter] = shared.find_records("dead", event)
        assert (letter["model"], letter["name"]) == (model, f"{model}/_SUCCESS")
        assert "GitHub responded 500" in letter["reason"]
        assert [line["severity"] for line in hasty.lines("Given up")] == ["ERROR"]
        assert (shared.github.calls_of(model), shared.find_records("done", event)) == (1, [])

    def test_a_death_before_the_dead_letter_still_leads_to_one(
        self, shared: Cloud, hasty: Function, model: str
    ) -> None:
        shared.github.script = [Response(500), Response(500)]
        event = shared.put(f"{model}/_SUCCESS", b"")
        blocked = shared.proxy.block("dead")
        waiting = hasty.post_aside(event)
        blocked.arrived()
        hasty.die()
        blocked.release()
        assert (waiting(), shared.find_records("dead", event)) == (0, [])

        assert [hasty.post(event), hasty.post(event)] == [200, 200]

        assert len(shared.find_records("dead", event)) == 1
        assert (shared.github.calls_of(model), shared.github.dispatches_of(model)) == (2, [])

    def test_a_storage_outage_is_retried_by_a_redelivery(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")
        shared.proxy.down = True
        refused = arrivals.post(event)
        shared.proxy.down = False

        assert (refused, arrivals.post(event)) == (500, 200)
        assert shared.github.calls_of(model) == 1

    def test_dispatches_are_a_second_apart(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        events = [shared.put(f"{model}-{number}/_SUCCESS", b"") for number in range(2)]

        assert [answer() for answer in [arrivals.post_aside(event) for event in events]] == [
            200
        ] * 2

        earlier, later = shared.github.times[-2:]
        assert later - earlier >= 1
