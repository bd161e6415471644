"""Models that are neither linear nor trees are explained by sampling."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from registry.explain.sampled import MAX_EVALUATIONS, SampledExplainer
from registry.features import MATRIX, Arrays, column_values
from registry.records import Column, Signature
from registry.runtimes.runtime import ModelOutput, Runtime

COLUMNS = [Column(name="a", kind="number"), Column(name="b", kind="number")]
TEXTS = [*COLUMNS, Column(name="c", kind="text")]


class Formula(Runtime):
    """A model that is a function of its columns; for a classifier, of the second probability."""

    def __init__(self, columns: list[Column], formula: Any, *, is_classifier: bool = False) -> None:
        super().__init__(
            Signature(
                task="classification" if is_classifier else "regression",
                target="y",
                columns=columns,
                classes=["no", "yes"] if is_classifier else None,
            )
        )
        self._columns = len(columns)
        self._formula = formula
        self.rows = 0

    def compute(self, arrays: Arrays, *, probabilities: bool = False) -> ModelOutput:
        values = self._formula(*(column_values(arrays, i) for i in range(self._columns)))
        self.rows += len(values)
        if not probabilities:
            return ModelOutput(values, None)
        return ModelOutput(values > 0.5, np.stack([1 - values, values], axis=1))


def matrix(rows: int, columns: int = 2) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


def explainer(runtime: Formula, background: Arrays, **options: Any) -> SampledExplainer:
    return SampledExplainer(runtime, background, columns=runtime._columns, **options)


def test_a_sum_of_columns_is_explained_exactly_though_it_is_sampled() -> None:
    background, rows = matrix(32), matrix(3)
    runtime = Formula(COLUMNS, lambda a, b: 3 * a - b)
    sampling = explainer(runtime, {MATRIX: background}, is_classifier=False)

    found = sampling.explain({MATRIX: rows}, np.zeros(3, np.int64), None)

    mean = background.mean(axis=0)
    assert found.is_approximate
    assert found.base == pytest.approx([3 * mean[0] - mean[1]] * 3, abs=1e-5)
    assert found.contributions == pytest.approx((rows - mean) * [3, -1], abs=1e-5)


def test_contributions_add_up_to_the_probability_of_the_predicted_class() -> None:
    runtime = Formula(COLUMNS, lambda a, b: 1 / (1 + np.exp(-a * b)), is_classifier=True)
    sampling = explainer(runtime, {MATRIX: matrix(32)}, is_classifier=True)
    rows, chosen = matrix(4), np.array([0, 1, 1, 0])
    probabilities = runtime.compute({MATRIX: rows}, probabilities=True).probabilities
    assert probabilities is not None
    served = probabilities[np.arange(4), chosen].astype(np.float64)

    found = sampling.explain({MATRIX: rows}, chosen, served)

    assert found.base + found.contributions.sum(axis=1) == pytest.approx(served, abs=1e-12)


def test_text_columns_are_swapped_like_numbers() -> None:
    runtime = Formula(TEXTS, lambda a, b, c: a + 10.0 * (c == "red"))
    background: Arrays = {
        "column_0": matrix(8, 1),
        "column_1": matrix(8, 1),
        "column_2": np.array([["red"], ["blue"]] * 4, dtype=object),
    }
    row = {
        "column_0": np.ones((1, 1), np.float32),
        "column_1": np.ones((1, 1), np.float32),
        "column_2": np.array([["red"]], dtype=object),
    }

    found = explainer(runtime, background, is_classifier=False).explain(
        row, np.zeros(1, np.int64), None
    )

    assert found.contributions[0, 1:] == pytest.approx([0, 5])


def test_a_repeated_request_gets_the_same_answer() -> None:
    runtime = Formula(COLUMNS, lambda a, b: a * b)
    first, second = (
        explainer(runtime, {MATRIX: matrix(8)}, is_classifier=False).explain(
            {MATRIX: matrix(2)}, np.zeros(2, np.int64), None
        )
        for _ in range(2)
    )

    assert (first.contributions == second.contributions).all()


@pytest.mark.parametrize("columns", [1, 2, 13, 500])
def test_the_cost_of_a_row_is_bounded(columns: int) -> None:
    names = [Column(name=f"c{i}", kind="number") for i in range(columns)]
    runtime = Formula(names, lambda *values: np.sum(values, axis=0))
    sampling = explainer(runtime, {MATRIX: matrix(32, columns)}, is_classifier=False)

    sampling.explain({MATRIX: matrix(1, columns)}, np.zeros(1, np.int64), None)

    assert runtime.rows <= max(MAX_EVALUATIONS, 8 * columns) + 32


def test_one_background_row_is_enough() -> None:
    runtime = Formula(COLUMNS, lambda a, b: a + b)
    sampling = explainer(runtime, {MATRIX: np.zeros((1, 2), np.float32)}, is_classifier=False)

    found = sampling.explain({MATRIX: np.ones((1, 2), np.float32)}, np.zeros(1, np.int64), None)

    assert found.base.tolist() == [0]
    assert found.contributions.tolist() == [[1, 1]]
