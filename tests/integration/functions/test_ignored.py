"""Ignored events are logged and acknowledged, never retried, and cause no call to GitHub."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from harness.cloud import Cloud, Function

Event = dict[str, Any]


class TestForgeries:
    @pytest.mark.parametrize(
        "forge",
        [
            lambda event: event | {"type": "google.cloud.storage.object.v1.deleted"},
            lambda event: event | {"data": event["data"] | {"bucket": "another-bucket"}},
            lambda event: event | {"data": event["data"] | {"name": "n" * 100_000}},
            lambda event: event | {"data": event["data"] | {"generation": "-1"}},
            lambda event: event | {"data": event["data"] | {"generation": "9" * 5000}},
            lambda event: event | {"data": {"bucket": event["data"]["bucket"]}},
            lambda event: event | {"data": [1, 2, 3]},
        ],
        ids=["type", "bucket", "long name", "negative", "many digits", "no name", "list"],
    )
    def test_they_are_acknowledged_with_a_warning(
        self, shared: Cloud, arrivals: Function, model: str, forge: Callable[[Event], Event]
    ) -> None:
        event = forge(shared.put(f"{model}/_SUCCESS", b""))

        assert arrivals.post(event) == 200

        [line] = arrivals.lines(event["id"])
        assert line["severity"] == "WARNING"
        assert shared.github.calls_of(model) == 0

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (b"{", {"ce-id": "1", "ce-type": "t", "ce-source": "s", "ce-specversion": "1.0"}),
            (b"{}", {"ce-id": "1", "ce-specversion": "1.0"}),
            (b"{", {"Content-Type": "application/cloudevents+json"}),
            (b"[]", {"Content-Type": "application/cloudevents+json"}),
            (b"hello", {}),
            (b"\xff", {"Content-Type": "application/cloudevents+json"}),
            (b"[" * 100_000, {"Content-Type": "application/cloudevents+json"}),
            (b'"text"', {"Content-Type": "application/cloudevents+json"}),
            (b'{"specversion": ["1.0"]}', {"Content-Type": "application/cloudevents+json"}),
            (b"[{}]", {"Content-Type": "application/cloudevents-batch+json"}),
            (b'"' + b"x" * 11_000_000 + b'"', {"Content-Type": "application/cloudevents+json"}),
        ],
        ids=[
            *("bad data", "no type", "bad document", "list", "no event", "no text", "nested"),
            *("text", "odd version", "batch", "large"),
        ],
    )
    def test_a_request_that_is_not_an_event_is_acknowledged_too(
        self, shared: Cloud, arrivals: Function, body: bytes, headers: dict[str, str]
    ) -> None:
        warned = len(arrivals.lines("WARNING"))

        assert arrivals.send(body, {"Content-Type": "application/json", **headers}) == 200

        assert len(arrivals.lines("WARNING")) == warned + 1

    def test_an_object_that_never_existed_is_ignored(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")
        event["data"]["name"] = f"{model}/part.csv"

        assert arrivals.post(event) == 200

        assert shared.github.calls_of(model) == 0


class TestObjectsThatEndNoDrop:
    @pytest.mark.parametrize(
        "path",
        [
            "{model}/dataset.json",
            "{model}/notes.txt",
            "{model}/folder/part.csv",
            "{model}/folder/_SUCCESS",
            "{model}/.csv/",
            "_SUCCESS",
            "part.csv",
            "_pipeline/part.csv",
            "Wine/part.csv",
            "a..b/part.csv",
            "{model}/\x07part.txt",
        ],
    )
    def test_they_are_acknowledged_and_logged(
        self, shared: Cloud, arrivals: Function, model: str, path: str
    ) -> None:
        event = shared.put(path.format(model=model))
        del event["subject"]  # HTTP headers cannot contain control characters
        before = len(shared.github.requests)

        assert arrivals.post(event) == 200

        assert [line["severity"] for line in arrivals.lines(event["id"])] == ["INFO"]
        assert len(shared.github.requests) == before
        assert shared.find_records("claims", event) == []

    def test_an_empty_part_is_ignored(self, shared: Cloud, arrivals: Function, model: str) -> None:
        assert arrivals.post(shared.put(f"{model}/part.csv", b"")) == 200

        assert shared.github.calls_of(model) == 0


@pytest.mark.costly
def test_an_object_older_than_the_limit_is_ignored(cloud: Cloud, model: str) -> None:
    function = cloud.function(PIPELINE_MAX_EVENT_AGE_SECONDS="0.2")
    event = cloud.put(f"{model}/_SUCCESS", b"")
    time.sleep(0.3)

    assert function.post(event) == 200

    assert "too old" in function.lines(event["id"])[0]["message"]
    assert cloud.github.requests == []


@pytest.mark.costly
def test_only_objects_under_the_prefix_count(cloud: Cloud, model: str) -> None:
    function = cloud.function(PIPELINE_STORE=f"gs://{cloud.bucket}/shop/data")
    inside = cloud.put(f"shop/data/{model}/part.csv")
    events = [cloud.put(f"{model}/part.csv"), cloud.put(f"shop/{model}/_SUCCESS", b""), inside]

    assert [function.post(event) for event in events] == [200] * 3

    assert [one["client_payload"]["name"] for one in cloud.github.dispatches_of(model)] == [
        f"shop/data/{model}/part.csv"
    ]
