"""Recent predictions: which ones are kept, that they come back unchanged, and their form."""

import gc
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from registry.records import Column, Manifest
from services.inference.monitoring.answered import AnsweredRequest
from services.inference.monitoring.recent_predictions import (
    MAX_ROWS_OF_ONE,
    MAX_VERSIONS,
    RecentPredictions,
)

ONE_NUMBER = {"features": np.array([[0.5]], dtype=np.float32)}


def manifest_of(*kinds: str, version: str = "1") -> Manifest:
    """Return as much of a manifest as is needed, with a column of each kind."""
    columns = [Column(name=f"c{i}", kind=cast(Any, kind)) for i, kind in enumerate(kinds)]
    signature = SimpleNamespace(columns=columns)
    return cast(Manifest, SimpleNamespace(model="wine", version=version, signature=signature))


WINE = manifest_of("number")


def add(recent: RecentPredictions, event: str, **changes: Any) -> None:
    manifest = changes.pop("manifest", WINE)
    one = AnsweredRequest(event, account="x", predictions=[1], arrays=ONE_NUMBER, size=8)
    recent.add(manifest, [one._replace(**changes)])


class TestBounds:
    def test_the_oldest_requests_are_dropped_first(self) -> None:
        recent = RecentPredictions(keep_rows=False, max_rows=3)

        for event in ("a", "b", "c", "d"):
            add(recent, event)

        assert recent.find("a") is None
        assert all(recent.find(event) for event in ("b", "c", "d"))

    def test_no_more_rows_are_kept_than_the_limit(self) -> None:
        recent = RecentPredictions(keep_rows=False, max_rows=2)

        for event, rows in [("a", 1), ("b", 2)]:
            add(recent, event, predictions=[1] * rows)

        assert recent.find("a") is None
        assert recent.find("b") is not None

    def test_no_more_bytes_are_kept_than_the_limit(self) -> None:
        recent = RecentPredictions(keep_rows=False, max_bytes=300)

        for event in ("a", "b", "c"):
            add(recent, event, predictions=["x" * 100])

        assert recent.find("a") is None
        assert all(recent.find(event) for event in ("b", "c"))

    def test_a_larger_request_is_kept_without_its_rows(self) -> None:
        recent = RecentPredictions(keep_rows=True, max_bytes_of_one=400)

        add(recent, "small", size=400)
        add(recent, "large", size=401)

        kept = {event: recent.find(event) for event in ("small", "large")}
        assert {event: each and each.rows for event, each in kept.items()} == {
            "small": [[0.5]],
            "large": None,
        }

    def test_a_request_of_very_many_rows_is_not_kept(self) -> None:
        recent = RecentPredictions(keep_rows=False)

        add(recent, "most", predictions=[1] * MAX_ROWS_OF_ONE)
        add(recent, "more", predictions=[1] * (MAX_ROWS_OF_ONE + 1))

        assert recent.find("most") is not None
        assert recent.find("more") is None

    def test_a_repeat_replaces_the_first_and_counts_once(self) -> None:
        recent = RecentPredictions(keep_rows=False, max_rows=2)

        add(recent, "a")
        for label in range(100):
            add(recent, "b", predictions=[label])

        found = recent.find("b")
        assert found is not None
        assert found.predictions == [99]
        assert recent.find("a") is not None

    def test_a_version_beyond_the_limit_drops_the_predictions_of_the_oldest(self) -> None:
        recent = RecentPredictions(keep_rows=False)

        for version in range(MAX_VERSIONS + 1):
            add(recent, str(version), manifest=manifest_of("number", version=str(version)))

        assert recent.find("0") is None
        newest = recent.find(str(MAX_VERSIONS))
        assert newest is not None
        assert newest.manifest.version == str(MAX_VERSIONS)


class TestContent:
    @pytest.mark.parametrize("predictions", [[0, 2], [True, False], ["red", "né\n"], [0.1, 1e300]])
    def test_predictions_come_back_with_their_values_and_types(
        self, predictions: list[Any]
    ) -> None:
        recent = RecentPredictions(keep_rows=False)

        add(recent, "a", predictions=predictions)

        found = recent.find("a")
        assert found is not None
        assert found.account == "x"
        assert found.manifest is WINE
        assert found.rows is None
        assert found.predictions == predictions
        assert [*map(type, found.predictions)] == [*map(type, predictions)]

    def test_numbers_come_back_as_the_shortest_decimals_and_missing_ones_as_none(self) -> None:
        recent = RecentPredictions(keep_rows=True)
        matrix = np.array([[0.1, 1, np.nan], [3, 0, 1e-5]], dtype=np.float32)
        manifest = manifest_of("number", "boolean", "number")

        add(recent, "a", manifest=manifest, arrays={"features": matrix}, predictions=[1, 1])

        found = recent.find("a")
        assert found is not None
        assert found.rows == [[0.1, True, None], [3.0, False, 1e-5]]
        assert [type(value) for value in found.rows[1]] == [float, bool, float]

    def test_columns_with_text_come_back_as_rows(self) -> None:
        recent = RecentPredictions(keep_rows=True)
        wide = np.array([[0.1, 9.0], [2.0, 9.0]], dtype=np.float32)
        arrays = {
            "column_0": np.array([["red\n"], [""]], dtype=object),
            "column_1": wide[:, :1],
            "column_2": np.array([[np.nan], [1]], dtype=np.float32),
        }
        manifest = manifest_of("text", "number", "boolean")

        add(recent, "a", manifest=manifest, arrays=arrays, predictions=[1, 1])

        found = recent.find("a")
        assert found is not None
        assert found.rows == [["red\n", 0.1, None], [None, 2.0, True]]


class TestForm:
    @pytest.mark.parametrize("keep_rows", [False, True])
    def test_the_garbage_collector_tracks_none_of_them(self, *, keep_rows: bool) -> None:
        recent = RecentPredictions(keep_rows=keep_rows)
        wide = manifest_of(*["number"] * 13)
        add(recent, "first", manifest=wide)
        gc.collect()
        before = len(gc.get_objects())

        for number in range(10_000):
            features = {"features": np.full((1, 13), number, dtype=np.float32)}
            add(recent, str(number), manifest=wide, arrays=features, predictions=[number])

        gc.collect()
        assert len(gc.get_objects()) - before < 100
        assert recent.find("9999") is not None
