"""When a drop starts a training run, and which of its events does so."""

import pytest

from harness.cloud import Cloud, Function


@pytest.fixture(scope="module")
def patient(shared: Cloud) -> Function:
    """Start on_data_arrival with a quiet time that is long enough for a test to act."""
    return shared.function(PIPELINE_QUIET_SECONDS="4")


class TestSuccessObject:
    def test_it_ends_a_drop_at_once_and_sends_the_workflow_its_payload(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")

        status = arrivals.post(event)

        payload = {key: event["data"][key] for key in ("bucket", "name", "generation")}
        assert status == 200
        assert shared.github.dispatches_of(model) == [
            {"event_type": "data-arrived", "client_payload": {"model": model, **payload}}
        ]
        assert len(shared.find_records("claims", event)) == 1
        assert len(shared.find_records("done", event)) == 1

    def test_a_structured_event_with_numbers_is_the_same_event(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")
        event["data"] |= {"generation": int(event["data"]["generation"]), "size": 0}

        assert arrivals.post_structured(event) == 200

        assert len(shared.github.dispatches_of(model)) == 1

    def test_earlier_parts_do_not_start_their_own_training(
        self, shared: Cloud, patient: Function, model: str
    ) -> None:
        parts = [shared.put(f"{model}/part-{number}.csv") for number in range(3)]
        waiting = [patient.post_aside(part) for part in parts]
        success = shared.put(f"{model}/_SUCCESS", b"")

        statuses = [patient.post(success)] + [answer() for answer in waiting]

        assert statuses == [200] * 4
        assert [one["client_payload"]["name"] for one in shared.github.dispatches_of(model)] == [
            f"{model}/_SUCCESS"
        ]


class TestQuietTime:
    def test_the_newest_of_many_parts_starts_one_training(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        parts = [shared.put(f"{model}/part-{number}.csv") for number in range(4)]
        parts += [shared.put(f"{model}/part-4.parquet")]

        waiting = [arrivals.post_aside(part) for part in reversed(parts)]

        assert [answer() for answer in waiting] == [200] * 5
        assert [one["client_payload"]["name"] for one in shared.github.dispatches_of(model)] == [
            f"{model}/part-4.parquet"
        ]

    def test_a_part_that_is_overwritten_meanwhile_waits_again(
        self, shared: Cloud, patient: Function, model: str
    ) -> None:
        first = shared.put(f"{model}/part.csv")
        waiting = patient.post_aside(first)
        second = shared.put(f"{model}/part.csv", b"x,y\n3,4\n")

        assert (patient.post(second), waiting()) == (200, 200)

        generations = [
            one["client_payload"]["generation"] for one in shared.github.dispatches_of(model)
        ]
        assert generations == [second["data"]["generation"]]

    def test_a_late_part_is_a_new_drop(self, shared: Cloud, arrivals: Function, model: str) -> None:
        assert arrivals.post(shared.put(f"{model}/_SUCCESS", b"")) == 200

        assert arrivals.post(shared.put(f"{model}/part.csv")) == 200

        assert len(shared.github.dispatches_of(model)) == 2

    def test_the_other_parts_are_a_drop_if_the_newest_is_deleted_meanwhile(
        self, shared: Cloud, patient: Function, model: str
    ) -> None:
        part, mistake = (shared.put(f"{model}/{name}.csv") for name in ("part", "rest"))
        waiting = patient.post_aside(mistake)
        assert patient.post(part) == 200  # it leaves the drop to the newer
        shared.delete(f"{model}/rest.csv")

        assert waiting() == 200

        assert [one["client_payload"]["name"] for one in shared.github.dispatches_of(model)] == [
            f"{model}/part.csv"
        ]

    def test_an_empty_part_does_not_block_the_others(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        part = shared.put(f"{model}/part.csv")
        empty = shared.put(f"{model}/rest.csv", b"")

        assert [arrivals.post(empty), arrivals.post(part)] == [200, 200]

        assert [one["client_payload"]["name"] for one in shared.github.dispatches_of(model)] == [
            f"{model}/part.csv"
        ]
