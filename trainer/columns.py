"""From a typed table to a signature, features and a target."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from services.common.model_records import Column, Label, Signature
from trainer.dataset_file import DatasetFile
from trainer.errors import DataError
from trainer.kinds import Features, Floats, Indices, Kind, Task
from trainer.table import Table

MIN_ROWS = 20
MAX_GUESSED_CLASSES = 20
MAX_CLASSES = 200  # a tree model keeps a number for each in every leaf
ROWS_AT_ONCE = 10_000
LARGEST_WHOLE = 2.0**53  # beyond it, a float64 skips integers


@dataclass(frozen=True)
class Problem:
    """What is to be learnt, from N rows whose target is known.

    Args:
        table: [N] rows of the feature columns, typed as in `Table`.
        labels: [N] what models are fitted on: text or int64 classes (False and True as 0 and 1),
            or float64 values.
        truth: [N] what models are scored on: int64 positions in `signature.classes`, or `labels`.
        groups: [N] numbers of groups that are not to be torn apart, or None.
        times: [N] when a row is from, growing, or None.
    """

    signature: Signature
    table: pd.DataFrame
    labels: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    groups: Indices | None = None
    times: Floats | None = None


def state_problem(
    table: Table,
    *,
    target: str,
    task: Task | None,
    stated: DatasetFile,
    known_kinds: dict[str, Kind],
) -> Problem:
    """Decide what the columns mean.

    Args:
        task: None to choose: classification for text, booleans and at most 20 different integers,
            else regression.
        known_kinds: of an earlier version, for columns with nothing in them; else they are numbers.

    Raises:
        DataError: the target is missing, empty, constant, or does not suit the task; there is no
            feature; there are fewer than 20 rows; groups or times cannot be read.
    """
    frame = table.frame
    for name, role in ((target, "target"), (stated.group, "group"), (stated.time, "time")):
        if name is not None and name not in frame:
            raise DataError(f"There is no column {name!r} to be the {role}.")
    rows = len(frame)
    if frame[target].isna().any():
        frame = frame[frame[target].notna()].reset_index(drop=True)
    if len(frame) < MIN_ROWS:
        raise DataError(
            f"{len(frame)} of {rows} rows have a target; at least {MIN_ROWS} are needed."
        )
    # A time is a feature only if its kind was stated: else no later row looks like an earlier one.
    aside = {target, stated.group, stated.time if stated.time not in stated.columns else None}
    features = frame[[name for name in frame if name not in aside]]
    columns = [
        Column(name=name, kind=table.kinds[name] or known_kinds.get(name, "number"))
        for name in map(str, features)
    ]
    if not columns:
        raise DataError("There is no column besides the target.")

    labels, classes = _read_target(frame[target], table.kinds[target], target, task)
    truth = labels
    if classes is not None:
        truth = np.searchsorted(np.unique(labels), labels)
    signature = Signature(
        task="regression" if classes is None else "classification",
        target=target,
        columns=columns,
        classes=classes,
    )
    return Problem(
        signature=signature,
        table=features,
        labels=labels,
        truth=truth,
        groups=None if stated.group is None else _read_groups(frame[stated.group]),
        times=None if stated.time is None else _read_times(frame[stated.time], stated.time),
    )


def encode(table: pd.DataFrame, columns: list[Column], rows: Indices | None = None) -> Features:
    """The features as models take them; what is missing, column or cell, is NaN or "".

    Numbers are float32 from here on, so that training sees exactly what serving will.

    Args:
        rows: positions of the rows wanted; None for all.
    """
    count = len(table) if rows is None else len(rows)
    if all(column.kind != "text" for column in columns):
        matrix = np.empty((count, len(columns)), dtype=np.float32)
        for i, column in enumerate(columns):
            matrix[:, i] = _encode_column(table, column, rows)
        return matrix
    encoded = {
        f"column_{i}": _encode_column(table, column, rows) for i, column in enumerate(columns)
    }
    return pd.DataFrame(encoded, index=pd.RangeIndex(count), copy=False)


def encode_in_turn(table: pd.DataFrame, columns: list[Column], rows: Indices) -> Iterator[Features]:
    """As `encode`, some rows at a time: what is only to be answered needs no memory for all."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield encode(table, columns, rows[start : start + ROWS_AT_ONCE])


def to_json(table: pd.DataFrame, columns: list[Column], rows: Indices) -> list[list[Any]]:
    """Some rows as a client would send them: numbers, booleans, text, and None for missing."""
    shown = [
        [_to_json_cell(cell, column) for cell in _encode_column(table, column, rows)]
        for column in columns
    ]
    return [list(row) for row in zip(*shown, strict=True)]


def _to_json_cell(cell: Any, column: Column) -> Any:
    if column.kind == "text":
        return str(cell) or None
    if np.isnan(cell):
        return None
    # By way of text: the shortest number that is the same float32.
    return bool(cell) if column.kind == "boolean" else float(str(cell))


def _encode_column(table: pd.DataFrame, column: Column, rows: Indices | None) -> npt.NDArray[Any]:
    values = table.get(column.name)
    if values is not None and rows is not None:
        values = values.iloc[rows]
    count = len(table) if rows is None else len(rows)
    is_text = values is not None and isinstance(values.dtype, pd.CategoricalDtype)
    if column.kind != "text":
        if values is None or is_text:
            return np.full(count, np.nan, dtype=np.float32)
        return np.asarray(values, dtype=np.float32)
    if values is None or not is_text:
        return np.full(count, "", dtype=object)
    # One string object per category that is used, not per cell nor for all there are; the first
    # stands for what is missing (−1).
    codes = np.append(values.cat.codes.to_numpy(), -1)
    used, places = np.unique(codes, return_inverse=True)
    names = np.array(["", *values.cat.categories[used[1:]]], dtype=object)
    return np.asarray(names[places[:-1]])


def _read_target(
    values: pd.Series, kind: Kind | None, target: str, task: Task | None
) -> tuple[npt.NDArray[Any], list[Label] | None]:
    """The labels, and the classes in the order of their probabilities (None for regression)."""
    different = values.nunique()
    if different < 2:
        raise DataError(f"The target {target!r} has one value only.")
    if kind == "boolean" and task != "regression":
        return values.to_numpy().astype(np.int64), [False, True]
    if kind == "text":
        if task == "regression":
            raise DataError(f"The target {target!r} is text: that is no regression.")
        if task is None and different > MAX_GUESSED_CLASSES:
            raise DataError(
                f"The target {target!r} is text with {different} different values; if they are "
                'classes, say "task": "classification" in dataset.json.'
            )
        _check_classes(different, target)
        # One object per class, as in `_encode_column`: numpy's own strings are all as long as the
        # longest, so that one torn cell would cost as much in every row.
        names = np.array([str(name) for name in values.cat.categories], dtype=object)
        labels = names[values.cat.codes.to_numpy()]
        return labels, np.unique(labels).tolist()

    numbers = values.to_numpy(dtype=np.float64)
    whole = bool((numbers == np.round(numbers)).all() and (np.abs(numbers) <= LARGEST_WHOLE).all())
    few = different <= MAX_GUESSED_CLASSES
    if task == "regression" or (task is None and not (whole and few)):
        return numbers, None
    if not whole:
        raise DataError(f"The target {target!r} has fractions: they cannot be classes.")
    _check_classes(different, target)
    return numbers.astype(np.int64), [int(label) for label in np.unique(numbers)]


def _check_classes(different: int, target: str) -> None:
    if different > MAX_CLASSES:
        raise DataError(
            f"The target {target!r} has {different} classes; at most {MAX_CLASSES} can be learnt."
            " Is it an identifier?"
        )


def _read_groups(values: pd.Series) -> Indices:
    """A number for every group, that of its name; rows without one are a group each."""
    known = pd.util.hash_pandas_object(values, index=False).to_numpy()
    groups = np.where(values.isna(), -1, (known >> 2).astype(np.int64))
    alone = groups < 0
    groups[alone] = -1 - np.arange(alone.sum())
    return groups


def _read_times(values: pd.Series, name: str) -> Floats:
    """Seconds, or the numbers themselves; −∞ where there is none, as such a row may be old."""
    if not isinstance(values.dtype, pd.CategoricalDtype):
        times = values.to_numpy(dtype=np.float64)
        return np.where(np.isnan(times), -np.inf, times)
    try:
        known = pd.to_datetime(values.cat.categories, format="ISO8601", utc=True)
    except ValueError as error:
        raise DataError(
            f"The time column {name!r} holds what is neither a number nor an ISO 8601 time."
        ) from error
    seconds = np.asarray((known - pd.Timestamp(0, tz="UTC")).total_seconds(), dtype=np.float64)
    return np.asarray(np.append(seconds, -np.inf)[values.cat.codes.to_numpy()])
