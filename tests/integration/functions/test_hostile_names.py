"""Hostile object names and forged events neither start a run nor lose a drop."""

import unicodedata
from typing import Any

import pytest

from harness.cloud import Cloud, Function

HOSTILE = [
    *("part 1", " part", "part ", "a  b", "#part", "part#1", "?part", "part?x=1", "%", "part%20"),
    *("%2e%2e", "%00", "pa'rt", 'pa"rt', "`id`", "$(id)", "${HOME}", "$PATH", "a;b", "a&b", "a|b"),
    *("a>b", "a<b", "*", "[a]", "{a}", "!a", "~", "\\part", "a\\nb", "part\n1", "part\r\n", "\t"),
    *("part\u00a02", "\u202epart", "\u200fpart", "\u200bpart", "\ufeffpart", "\u2028", "\x07part"),
    *("\x7f", "\x1b[31m", "${jndi:x}", "-rf", "--help", "=1+1", "@part", ".part", "_part"),
    *("日本", "\U0001f377", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")),
    "p" * 900,
]


def only_line(function: Function, event: dict[str, Any]) -> dict[str, Any]:
    [line] = function.lines(event["id"])
    return line


def put(cloud: Cloud, name: str, content: bytes = b"x,y\n1,2\n") -> dict[str, Any]:
    """Write an object; return its event without the header that HTTP could not carry."""
    event = cloud.put(name, content)
    del event["subject"]
    return event


def test_there_are_fifty_distinct_names() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 50


def test_no_hostile_name_starts_anything_and_each_is_logged_once(
    shared: Cloud, arrivals: Function, model: str
) -> None:
    events = [put(shared, f"{model}/{name}.csv") for name in HOSTILE]

    assert [arrivals.post(event) for event in events] == [200] * len(events)

    lines = [only_line(arrivals, event) for event in events]
    assert {line["severity"] for line in lines} == {"WARNING"}
    assert {line["decision"] for line in lines} == {"unsupported_name"}
    assert all("rename it" in line["message"] for line in lines)
    named = [f"{shared.bucket}/{model}/{name}.csv" for name in HOSTILE]
    assert [line["drop"].rpartition("#")[0] for line in lines] == named
    assert shared.github.calls_of(model) == 0


def test_a_drop_among_hostile_names_is_dispatched_once(
    shared: Cloud, arrivals: Function, model: str
) -> None:
    part = put(shared, f"{model}/part-1.csv")
    hostile = [put(shared, f"{model}/{name}.csv") for name in HOSTILE]

    assert {arrivals.post(event) for event in [*hostile, part]} == {200}

    [document] = shared.github.dispatches_of(model)
    assert document["client_payload"]["name"] == f"{model}/part-1.csv"


@pytest.mark.parametrize("name", ["part\u00a02", "part\u202e2", "part\n2"])
def test_a_drop_whose_last_object_has_an_odd_name_is_not_lost(
    shared: Cloud, arrivals: Function, model: str, name: str
) -> None:
    events = [put(shared, f"{model}/{each}.csv") for each in ("part-1", name)]

    assert [arrivals.post(event) for event in events] == [200, 200]

    assert len(shared.github.dispatches_of(model)) == 1


def test_a_name_of_maximum_length_is_logged_once(
    shared: Cloud, arrivals: Function, model: str
) -> None:
    name = f"{model}/".ljust(1020, "p") + ".csv"
    event = put(shared, name)

    assert arrivals.post(event) == 200

    assert only_line(arrivals, event)["drop"].startswith(f"{shared.bucket}/{name}#")
    assert shared.github.calls_of(model) == 0


@pytest.mark.parametrize(
    "folder", ["{} x", "{}#", "{}?", "{}%2f..", "$({})", "{}\n", "\u202e{}", "é{}"]
)
def test_a_folder_without_a_model_name_starts_nothing(
    shared: Cloud, arrivals: Function, model: str, folder: str
) -> None:
    event = put(shared, f"{folder.format(model)}/_SUCCESS", b"")

    assert arrivals.post(event) == 200

    assert only_line(arrivals, event)["severity"] == "INFO"
    assert shared.github.calls_of(model) == 0


class TestEvents:
    def test_an_event_without_a_generation_starts_nothing_and_does_not_block_the_drop(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        good = shared.put(f"{model}/_SUCCESS", b"")
        data = {key: value for key, value in good["data"].items() if key != "generation"}
        without = good | {"id": f"without-{model}", "data": data}

        assert arrivals.post(without) == 200

        assert only_line(arrivals, without)["severity"] == "WARNING"
        assert shared.github.calls_of(model) == 0
        assert arrivals.post(good) == 200
        assert shared.github.calls_of(model) == 1

    def test_an_event_of_a_foreign_bucket_starts_nothing(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")
        event["data"] |= {"bucket": shared.records}

        assert [arrivals.post(event), arrivals.post(event)] == [200, 200]

        assert {line["severity"] for line in arrivals.lines(event["id"])} == {"WARNING"}
        assert shared.github.calls_of(model) == 0

    def test_an_event_with_a_false_age_is_judged_by_its_object(
        self, shared: Cloud, arrivals: Function, model: str
    ) -> None:
        event = shared.put(f"{model}/_SUCCESS", b"")
        old = {"time": "2019-01-01T00:00:00Z", "data": event["data"] | {"generation": "1546300800"}}

        assert arrivals.post(event | old) == 200

        assert shared.github.calls_of(model) == 0
        assert arrivals.post(event) == 200
        assert shared.github.calls_of(model) == 1
