"""From a typed table to a signature, features and a target."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from services.common.model_records import Column, Signature
from trainer.cells import show_value
from trainer.dataset_file import DatasetFile
from trainer.errors import DataError
from trainer.kinds import Features, Floats, Indices, Kind, Task
from trainer.table import Table
from trainer.targets import read_target

MIN_ROWS = 20
ROWS_AT_ONCE = 10_000


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
        rows_read: of the data, those without a target included.
        aside: columns that are not features, each with the reason.
    """

    signature: Signature
    table: pd.DataFrame
    labels: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    groups: Indices | None = None
    times: Floats | None = None
    rows_read: int = 0
    aside: dict[str, str] = field(default_factory=dict)


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
    kept = np.flatnonzero(frame[target].notna())
    if len(kept) < MIN_ROWS:
        raise DataError(
            f"{len(kept)} of {len(frame)} rows have a target; at least {MIN_ROWS} are needed."
        )
    if len(kept) < len(frame):
        frame = frame.iloc[kept].reset_index(drop=True)
    aside = {target: "the target"}
    if stated.group is not None:
        aside[stated.group] = "the group"
    # A time is a feature only if its kind was stated: else no later row looks like an earlier one.
    if stated.time is not None and stated.time not in stated.columns:
        aside[stated.time] = "the time; it only decides which rows are held out"
    features = frame[[name for name in frame if name not in aside]]
    columns = [
        Column(name=name, kind=table.kinds[name] or known_kinds.get(name, "number"))
        for name in map(str, features)
    ]
    if not columns:
        raise DataError("There is no column besides the target.")

    labels, classes = read_target(table, kept, frame[target], task=task, stated=stated)
    truth = labels
    if classes is not None:
        truth = np.searchsorted(np.unique(labels), labels)
    signature = Signature(
        task="regression" if classes is None else "classification",
        target=target,
        columns=columns,
        classes=classes,
        value_rules=stated.value_rules,
    )
    return Problem(
        signature=signature,
        table=features,
        labels=labels,
        truth=truth,
        groups=None if stated.group is None else _read_groups(frame[stated.group]),
        times=None if stated.time is None else _read_times(table, kept, frame[stated.time]),
        rows_read=len(table.frame),
        aside=aside,
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


def _read_groups(values: pd.Series) -> Indices:
    """A number for every group, that of its name; rows without one are a group each."""
    known = pd.util.hash_pandas_object(values, index=False).to_numpy()
    groups = np.where(values.isna(), -1, (known >> 2).astype(np.int64))
    alone = groups < 0
    groups[alone] = -1 - np.arange(alone.sum())
    return groups


def _read_times(table: Table, kept: Indices, values: pd.Series) -> Floats:
    """Seconds, or the numbers themselves; −∞ where there is none, as such a row may be old."""
    if not isinstance(values.dtype, pd.CategoricalDtype):
        times = values.to_numpy(dtype=np.float64)
        return np.where(np.isnan(times), -np.inf, times)
    known = pd.to_datetime(values.cat.categories, format="ISO8601", utc=True, errors="coerce")
    codes = values.cat.codes.to_numpy()
    is_bad = np.append(np.asarray(known.isna()), False)[codes]
    if is_bad.any():
        row = int(is_bad.argmax())
        name, count = str(values.name), int(is_bad.sum())
        raise DataError(
            f"The time column {name!r} has {count:,} cell{'s' if count > 1 else ''} that "
            f"{'are' if count > 1 else 'is'} neither a number nor an ISO 8601 time: "
            f"{table.place(int(kept[row]), name)}: {show_value(values.iloc[row])}"
            f"{', …' if count > 1 else ''}."
        )
    # In nanoseconds, 9999-12-31 would be out of range: it is what many a database has for "never".
    seconds = known.as_unit("us").to_numpy(dtype="datetime64[us]").astype(np.float64) / 1e6
    return np.asarray(np.append(seconds, -np.inf)[codes])
