"""Times and sentences in requests: decoded, refused by column, and kept for feedback and drift."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from registry.drift import Bins
from registry.features import expand
from registry.records import Column, ColumnStatistics, Signature
from services.common.errors import BodyInvalid
from services.inference.api.v2.tensors import RawTensor, decode, describe_inputs
from services.inference.models.inputs import Inputs
from services.inference.monitoring.answered import AnsweredRequest
from services.inference.monitoring.recent_predictions import RecentPredictions

SIGNATURE = Signature(
    task="regression",
    target="y",
    columns=[Column(name="at", kind="datetime"), Column(name="review", kind="sentence")],
    classes=None,
    value_rules={"missing": ("NA",)},
    starts={"at": datetime(2026, 1, 1, tzinfo=UTC)},
)
INPUTS = Inputs(SIGNATURE)


def tensors(*times: Any) -> list[RawTensor]:
    rows = len(times)
    return [
        RawTensor("at", "BYTES", [rows, 1], list(times), None),
        RawTensor("review", "BYTES", [rows, 1], ["fine"] * rows, None),
    ]


class TestRequests:
    @pytest.mark.parametrize(
        "time", ["2026-01-31T14:00:00Z", "2026-01-31T15:00:00+01:00", " 2026-01-31T14:00 "]
    )
    def test_have_times_in_iso_8601(self, time: str) -> None:
        rows = INPUTS.decode([[time, "x"], {"at": None, "review": None}, ["NA", "NA"]])
        by_tensor, _ = decode(tensors(time, None, "NA"), INPUTS, max_rows=10)

        assert rows["column_0"].ravel().tolist()[0] == 1769868000.0
        assert np.isnan(rows["column_0"].ravel()[1:]).all()
        assert rows["column_1"].ravel().tolist() == ["x", "", ""]
        assert np.array_equal(rows["column_0"], by_tensor["column_0"], equal_nan=True)

    @pytest.mark.parametrize("time", ["soon", "2026-02-30", "31.01.2026", 1769868000, True])
    def test_with_another_time_are_refused_by_column(self, time: Any) -> None:
        with pytest.raises(BodyInvalid) as by_row:
            INPUTS.decode([{"at": time, "review": "x"}])
        with pytest.raises(BodyInvalid) as by_tensor:
            decode(tensors(time), INPUTS, max_rows=10)

        [error] = by_row.value.extra["errors"]
        assert error["loc"] == ["instances", 0, "at"]
        assert error["msg"].startswith("Must be an ISO 8601 date or time, such as 2026-01-31T")
        assert by_tensor.value.extra["errors"][0]["loc"] == ["inputs", "at"]

    def test_may_be_of_the_first_and_last_days(self) -> None:
        days = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]

        arrays = INPUTS.decode([[day, None] for day in days])

        assert np.isfinite(arrays["column_0"]).all()
        assert expand(arrays, SIGNATURE)["column_0_year"].ravel().tolist() == [0, 10000]

    def test_declare_both_kinds_as_bytes(self) -> None:
        assert [each["datatype"] for each in describe_inputs(SIGNATURE)] == ["BYTES", "BYTES"]


class TestExpansion:
    def test_gives_the_parts_of_times_and_the_words_of_sentences(self) -> None:
        arrays = INPUTS.decode([["2026-02-01T18:00:00Z", "It's GREAT,  naïve!"], [None, None]])

        inputs = expand(arrays, SIGNATURE)

        parts = {name: values.ravel().tolist() for name, values in inputs.items()}
        assert parts.pop("column_1") == ["it s great naïve", ""]
        assert {name: values[0] for name, values in parts.items()} == {
            "column_0_year": 2026,
            "column_0_month": 2,
            "column_0_day_of_week": 6,
            "column_0_hour": 18,
            "column_0_days": 31.75,
        }
        assert all(np.isnan(values[1]) for values in parts.values())


class TestDrift:
    def test_counts_sentences_by_words_and_of_times_only_the_missing(self) -> None:
        times = ColumnStatistics(name="at", kind="datetime", count=2, missing=0, mean=1769868000.0)
        words = ColumnStatistics(
            name="review", kind="sentence", count=2, missing=0, edges=[2.0], shares=[0.5, 0.5]
        )
        arrays = INPUTS.decode([["2026-01-01", "one two"], ["2027-01-01", "a b c"], [None, None]])

        assert Bins(times).count(arrays["column_0"].ravel()).tolist() == [2, 1]
        assert Bins(words).count(arrays["column_1"].ravel()).tolist() == [1, 1, 1]
        assert Bins(times).stability(np.array([2, 1])) == 0


class TestFeedback:
    def test_gets_the_rows_as_they_were_sent(self) -> None:
        recent = RecentPredictions(keep_rows=True)
        sent = [["2026-01-31T14:00:00Z", "Fine, thanks."], ["2026-01-31T14:00:00.250000Z", None]]
        manifest: Any = SimpleNamespace(model="m", version="1", signature=SIGNATURE)

        recent.add(
            manifest,
            [AnsweredRequest("1", "ada", INPUTS.decode(sent), [1.0, 2.0], 100)],
        )

        found = recent.find("1")
        assert found is not None
        assert found.rows == sent
