"""The charts of a training report."""

import numpy as np

from trainer.report.charts import MIN_BIN_ROWS, calibration


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
