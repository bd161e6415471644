"""The charts of a training report."""

import re

import numpy as np
import pytest

from trainer.report.charts import MIN_BIN_ROWS, calibration, importances, predicted_against_true

LETTER = 4.5
"""Points that a letter of the charts takes at least, on average."""


def chart(*bins: tuple[float, int]) -> str:
    """Draw the calibration of two classes from (probability, rows) of each bin."""
    given = np.concatenate([np.full(rows, probability) for probability, rows in bins])
    truth = np.arange(len(given)) % 2
    return calibration(truth, np.column_stack([1 - given, given]))


def test_bins_with_few_rows_are_marked_and_explained() -> None:
    page = chart((0.1, 40), (0.5, MIN_BIN_ROWS - 1), (0.9, 40))

    assert f"hollow: fewer than {MIN_BIN_ROWS} rows" in page
    assert "fill: none; stroke: #2563eb" in page


def test_nothing_is_explained_where_every_bin_has_enough_rows() -> None:
    assert "hollow" not in chart((0.1, 40), (0.9, MIN_BIN_ROWS))


@pytest.mark.parametrize("scale", [1e-9, 1, 1e5, 1e13])
def test_no_label_of_values_is_cut_off(scale: float) -> None:
    values = np.linspace(-4, 4, 50) * scale

    assert_inside(predicted_against_true(values, values.astype(np.float32)))


def test_no_name_of_a_column_is_cut_off() -> None:
    assert_inside(importances({"a very long name of a column, indeed": 0.0123, "age": 0.2}))


def assert_inside(page: str) -> None:
    """Assert that every horizontal text of a chart is on the page."""
    (width, height) = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', page)[0])
    texts = re.findall(
        r'anchor: (\w+)" x="([^"]+)" y="([^"]+)" transform="rotate\(-0 [^>]*>([^<]+)', page
    )
    assert len(texts) > 5
    for anchor, x, y, text in texts:
        share = {"start": 0, "middle": 0.5, "end": 1}[anchor]
        begin = float(x) - share * LETTER * len(text)
        assert begin >= 0, text
        assert begin + LETTER * len(text) <= width, text
        assert 9 <= float(y) <= height, text
