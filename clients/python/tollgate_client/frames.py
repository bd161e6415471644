"""From answers to a DataFrame with the index of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tollgate_client.answers import Prediction, Receipt


def result_frame(
    frame: Any,
    parts: Sequence[tuple[Prediction, Sequence[Any] | None]],
    *,
    receipt: Receipt,
) -> Any:
    """Return the DataFrame for the first rows of `frame`, which `parts` answer in order.

    Args:
        parts: each batch's answer and the classes of the version that gave it; None: unknown.
    """
    import pandas

    rows = sum(len(prediction.predictions) for prediction, _ in parts)
    columns: dict[str, list[Any]] = {}
    at = 0
    for prediction, classes in parts:
        size = len(prediction.predictions)
        for name, values in _columns(prediction, classes).items():
            # Versions may differ in their classes; what a version does not have is missing.
            columns.setdefault(name, [None] * rows)[at : at + size] = values
        at += size
    result = pandas.DataFrame(columns, index=frame.index[:rows])
    result.attrs["receipt"] = receipt
    return result


def _columns(prediction: Prediction, classes: Sequence[Any] | None) -> dict[str, Sequence[Any]]:
    columns: dict[str, Sequence[Any]] = {"prediction": prediction.predictions}
    if prediction.probabilities is not None:
        by_class = list(zip(*prediction.probabilities))
        names = range(len(by_class)) if classes is None else classes
        columns.update({f"probability_{name}": each for name, each in zip(names, by_class)})
    if prediction.intervals is not None:
        columns["low"], columns["high"] = zip(*prediction.intervals)
    if prediction.label_sets is not None:
        columns["label_set"] = prediction.label_sets
    return columns


def fits(classes: Sequence[Any], prediction: Prediction) -> bool:
    """Return whether the probabilities may be those of these classes: labels have the largest."""
    rows = prediction.probabilities or []
    return all(
        label in classes
        and len(row) == len(classes)
        and row[list(classes).index(label)] == max(row)
        for label, row in zip(prediction.predictions, rows)
    )
