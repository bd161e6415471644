"""From a table of text to a signature, features and a target."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from services.common.model_records import Column, Label, Signature
from trainer.errors import DataError
from trainer.kinds import Features, Floats, Kind, Task

MIN_ROWS = 20
MAX_GUESSED_CLASSES = 20
LARGEST_WHOLE = 2.0**53  # beyond it, a float64 skips integers
LARGEST = float(np.finfo(np.float32).max)
TRUTH = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Problem:
    """What is to be learnt, from N rows whose target is known.

    Args:
        table: [N] rows of the feature columns, still as text.
        labels: [N] what models are fitted on: text or int64 classes (False and True as 0 and 1),
            or float64 values.
        truth: [N] what models are scored on: int64 positions in `signature.classes`, or `labels`.
    """

    signature: Signature
    table: pd.DataFrame
    labels: npt.NDArray[Any]
    truth: npt.NDArray[Any]


def state_problem(table: pd.DataFrame, *, target: str, task: Task | None) -> Problem:
    """Decide what the columns mean.

    Args:
        task: None to choose: classification for text, booleans and at most 20 different integers,
            else regression.

    Raises:
        DataError: the target is missing, empty, constant, or does not suit the task; there is no
            feature; there are fewer than 20 rows; a number does not fit 32 bits.
    """
    if target not in table.columns:
        raise DataError(f"There is no column {target!r} to be the target.")
    known = table[table[target].notna()].reset_index(drop=True)
    if len(known) < MIN_ROWS:
        raise DataError(
            f"{len(known)} of {len(table)} rows have a target; at least {MIN_ROWS} are needed."
        )
    features = known.drop(columns=target)
    columns = [Column(name=str(name), kind=guess_kind(features[name])) for name in features]
    if not columns:
        raise DataError("There is no column besides the target.")
    for column in columns:
        if column.kind == "number" and (np.abs(_numbers(features[column.name])) > LARGEST).any():
            raise DataError(f"The column {column.name!r} has numbers beyond 32-bit floats.")

    labels, classes = _read_target(known[target], target, task)
    truth = labels
    if classes is not None:
        truth = np.searchsorted(np.unique(labels), labels)
    signature = Signature(
        task="regression" if classes is None else "classification",
        target=target,
        columns=columns,
        classes=classes,
    )
    return Problem(signature=signature, table=features, labels=labels, truth=truth)


def guess_kind(values: pd.Series) -> Kind:
    """`boolean` if all that is there says true or false, `number` if it is numbers, else `text`.

    A column with nothing in it is a `number`: it will be imputed like one.
    """
    present = values.dropna()
    if len(present) and present.str.lower().isin(TRUTH).all():
        return "boolean"
    return "text" if np.isnan(_numbers(present)).any() else "number"


def encode(table: pd.DataFrame, columns: list[Column]) -> Features:
    """The features as models take them; what is missing, column or cell, is NaN or "".

    Numbers are float32 from here on, so that training sees exactly what serving will.
    """
    nothing = pd.Series(np.nan, index=table.index, dtype=str)
    encoded = [_encode_column(table.get(column.name, nothing), column) for column in columns]
    if all(column.kind != "text" for column in columns):
        return np.column_stack(encoded).astype(np.float32)
    return pd.DataFrame({f"column_{i}": values for i, values in enumerate(encoded)})


def to_json(table: pd.DataFrame, columns: list[Column]) -> list[list[Any]]:
    """The rows as a client would send them: numbers, booleans, text, and None for missing."""
    return [
        [_to_json_cell(row[column.name], column) for column in columns]
        for row in table.to_dict("records")
    ]


def _to_json_cell(cell: Any, column: Column) -> Any:
    if pd.isna(cell):
        return None
    if column.kind == "boolean":
        return cell.lower() == "true"
    return float(cell) if column.kind == "number" else cell


def _encode_column(values: pd.Series, column: Column) -> npt.NDArray[Any]:
    if column.kind == "text":
        return np.asarray(values.fillna(""), dtype=object)
    if column.kind == "boolean":
        return np.asarray(values.str.lower().map(TRUTH), dtype=np.float32)
    numbers = _numbers(values)
    return np.where(np.abs(numbers) <= LARGEST, numbers, np.nan).astype(np.float32)


def _numbers(values: pd.Series) -> Floats:
    """The cells as float64; NaN where a cell is missing or is no number."""
    return np.asarray(pd.to_numeric(values, errors="coerce"), dtype=np.float64)


def _read_target(
    values: pd.Series, target: str, task: Task | None
) -> tuple[npt.NDArray[Any], list[Label] | None]:
    """The labels, and the classes in the order of their probabilities (None for regression)."""
    kind, different = guess_kind(values), values.nunique()
    if different < 2:
        raise DataError(f"The target {target!r} has one value only.")
    if kind == "boolean" and task != "regression":
        return _encode_column(values, Column(name=target, kind=kind)).astype(np.int64), [
            False,
            True,
        ]
    if kind == "text":
        if task == "regression":
            raise DataError(f"The target {target!r} is text: that is no regression.")
        if task is None and different > MAX_GUESSED_CLASSES:
            raise DataError(
                f"The target {target!r} is text with {different} different values; if they are "
                'classes, say "task": "classification" in dataset.json.'
            )
        labels = values.to_numpy(dtype=np.str_)
        return labels, [str(label) for label in np.unique(labels)]

    numbers = _encode_target_numbers(values, target)
    whole = bool((numbers == np.round(numbers)).all() and (np.abs(numbers) <= LARGEST_WHOLE).all())
    few = len(np.unique(numbers)) <= MAX_GUESSED_CLASSES
    if task == "regression" or (task is None and not (whole and few)):
        return numbers, None
    if not whole:
        raise DataError(f"The target {target!r} has fractions: they cannot be classes.")
    return numbers.astype(np.int64), [int(label) for label in np.unique(numbers)]


def _encode_target_numbers(values: pd.Series, target: str) -> Floats:
    if guess_kind(values) == "boolean":
        return np.asarray(values.str.lower().map(TRUTH), dtype=np.float64)
    numbers = _numbers(values)
    if (np.abs(numbers) > LARGEST).any():
        raise DataError(f"The target {target!r} has numbers beyond 32-bit floats.")
    return numbers
