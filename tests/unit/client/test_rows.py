"""What rows become on their way to a service and back."""

import datetime as dt
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tollgate_client import InvalidInputError, Prediction, Receipt
from tollgate_client.frames import fits, result_frame
from tollgate_client.rows import Rows, encode
from tollgate_client.tensors import infer_document, read_outputs

RECEIPT = Receipt(event_id="e", amount="1", currency="USD", model="m", version="v")


def instances(given: Any) -> Any:
    rows = Rows(given)
    return json.loads(encode(rows.instances(0, rows.count)))


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ([{"a": 1, "b": None}], [{"a": 1, "b": None}]),
        ([(1, 2.5), [True, "x"]], [[1, 2.5], [True, "x"]]),
        ([[float("nan"), pd.NA, pd.NaT, None]], [[None] * 4]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        ([np.array([1.5])], [[1.5]]),
        ([[np.float32(1.5), np.int64(2), np.bool_(True), np.str_("x")]], [[1.5, 2, True, "x"]]),
        (
            [[dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)]],
            [["2026-01-02", "2026-01-02T03:00:00+00:00"]],
        ),
    ],
)
def test_values_become_those_of_json(given: Any, sent: Any) -> None:
    assert instances(given) == sent


def test_a_frame_becomes_named_columns() -> None:
    frame = pd.DataFrame(
        {
            "number": [1.5, None],
            "count": pd.array([1, None], dtype="Int64"),
            "text": ["a", None],
            "kind": pd.Categorical(["x", None]),
            "time": pd.to_datetime(["2026-01-02T03:04:05Z", None]),
            "flag": pd.array([True, None], dtype="boolean"),
        },
        index=[7, 7],
    )

    assert instances(frame) == [
        {
            "number": 1.5,
            "count": 1,
            "text": "a",
            "kind": "x",
            "time": "2026-01-02T03:04:05+00:00",
            "flag": True,
        },
        dict.fromkeys(frame.columns),
    ]


def test_a_frame_without_names_is_in_the_order_of_the_model() -> None:
    assert instances(pd.DataFrame([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("given", "loc"),
    [
        ([], ["instances"]),
        ("text", ["instances"]),
        ({"a": 1}, ["instances"]),
        ([1], ["instances", 0]),
        ([[1], "text"], ["instances", 1]),
        ([{1: 2}], ["instances", 0]),
        ([{"a": float("inf")}], ["instances", 0, "a"]),
        ([[1], [np.float64("-inf")]], ["instances", 1, 0]),
        ([[object()]], ["instances", 0, 0]),
        (["\ud800"], ["instances", 0]),
        ([["\ud800"]], ["instances"]),
        (pd.DataFrame(), ["instances"]),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ["instances"]),
        (pd.DataFrame([[1, 2]], columns=["a", 5]), ["instances"]),
        (pd.DataFrame({"a": [1.0, float("inf")]}), ["instances", 1, "a"]),
    ],
)
def test_what_cannot_be_sent_is_named(given: Any, loc: list[Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        instances(given)

    assert caught.value.errors[0]["loc"] == loc
    assert caught.value.status is None


def test_at_most_fifty_errors_are_named() -> None:
    with pytest.raises(InvalidInputError) as caught:
        instances([[float("inf")]] * 1000)

    assert len(caught.value.errors) == 50


class TestFrames:
    def test_a_regression_with_intervals(self) -> None:
        frame = pd.DataFrame({"x": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
        prediction = Prediction(predictions=[1.5, 2], intervals=[(1, 2), (1.5, 3)], receipt=RECEIPT)

        result = result_frame(frame, [(prediction, None)], receipt=RECEIPT)

        assert list(result.columns) == ["prediction", "low", "high"]
        assert list(result.index) == list(frame.index)
        assert result["high"].to_list() == [2, 3]
        assert result.attrs["receipt"] == RECEIPT

    def test_versions_with_other_classes_in_one_call(self) -> None:
        frame = pd.DataFrame({"x": [1, 2]})
        first = Prediction(predictions=["a"], probabilities=[[0.9, 0.1]], receipt=RECEIPT)
        second = Prediction(predictions=["c"], probabilities=[[0.2, 0.8]], receipt=RECEIPT)

        result = result_frame(frame, [(first, ["a", "b"]), (second, ["a", "c"])], receipt=RECEIPT)

        assert result["probability_a"].to_list() == [0.9, 0.2]
        assert result["probability_b"].isna().to_list() == [False, True]
        assert result["probability_c"].isna().to_list() == [True, False]

    def test_a_result_with_a_receipt_can_be_stored(self, tmp_path: Any) -> None:
        prediction = Prediction(predictions=[1], receipt=RECEIPT)
        result = result_frame(pd.DataFrame({"x": [1]}), [(prediction, None)], receipt=RECEIPT)

        result.to_parquet(tmp_path / "result.parquet")

        again = pd.read_parquet(tmp_path / "result.parquet")
        assert again.attrs["receipt"]["event_id"] == "e"

    @pytest.mark.parametrize(
        ("classes", "expected"), [(["a", "b"], True), (["b", "a"], False), (["a"], False)]
    )
    def test_classes_fit_if_each_label_has_the_largest_probability(
        self, classes: list[str], expected: bool
    ) -> None:
        prediction = Prediction(predictions=["a"], probabilities=[[0.9, 0.1]], receipt=RECEIPT)

        assert fits(classes, prediction) is expected


class TestTensors:
    MIXED: tuple[dict[str, Any], ...] = (
        {"name": "age", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "town", "datatype": "BYTES", "shape": [-1, 1]},
    )
    NUMBERS: tuple[dict[str, Any], ...] = (
        {"name": "features", "datatype": "FP32", "shape": [-1, 2]},
    )

    def test_lists_of_numbers_are_a_matrix(self) -> None:
        document = infer_document(
            [[1, None], [3, 4]], self.NUMBERS, probabilities=True, first_row=0
        )

        assert document == {
            "inputs": [
                {"name": "features", "datatype": "FP64", "shape": [2, 2], "data": [1, None, 3, 4]}
            ],
            "outputs": [{"name": "predict"}, {"name": "predict_proba"}],
        }

    @pytest.mark.parametrize(
        "rows", [[[1, "x"], [2, None]], [{"age": 1, "town": "x"}, {"town": None, "age": 2}]]
    )
    def test_mixed_columns_are_an_input_each(self, rows: list[Any]) -> None:
        document = infer_document(rows, self.MIXED, probabilities=False, first_row=0)

        assert document["inputs"] == [
            {"name": "age", "datatype": "FP64", "shape": [2], "data": [1, 2]},
            {"name": "town", "datatype": "BYTES", "shape": [2], "data": ["x", None]},
        ]

    @pytest.mark.parametrize(
        ("row", "loc"),
        [
            ({"age": 1}, ["instances", 11, "town"]),
            ({"age": 1, "town": "x", "z": 1}, ["instances", 11, "z"]),
            ([1], ["instances", 11]),
        ],
    )
    def test_a_row_with_other_columns_is_named(self, row: Any, loc: list[Any]) -> None:
        rows = [{"age": 1, "town": "x"}, row]

        with pytest.raises(InvalidInputError) as caught:
            infer_document(rows, self.MIXED, probabilities=False, first_row=10)

        assert caught.value.errors[0]["loc"] == loc

    def test_outputs_become_predictions(self) -> None:
        outputs = [
            {"name": "predict_proba", "datatype": "FP64", "shape": [2, 2], "data": [1, 0, 0, 1]},
            {"name": "predict", "datatype": "BOOL", "shape": [2], "data": [True, False]},
        ]

        assert read_outputs({"outputs": outputs}) == {
            "predictions": [True, False],
            "probabilities": [[1, 0], [0, 1]],
        }
