"""Define the learning problem: a signature, features and a target."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.datetimes import format_time
from registry.records import Column, Signature
from trainer.data.cells import show_value
from trainer.data.config import DatasetConfig
from trainer.data.table import Table
from trainer.data.target import read_target
from trainer.errors import DataError
from trainer.types import Floats, Indices, Kind, Task
from trainer.wording import counted, listed

MIN_ROWS = 20
MAX_NAMED = 20


@dataclass(frozen=True)
class Problem:
    """The learning problem: N rows whose target is known.

    Args:
        table: [N] feature columns, typed as in `Table`.
        labels: [N] what models are fitted on: text or int64 classes (False and True as 0 and 1),
            or float64 values.
        truth: [N] what models are scored on: int64 positions in `signature.classes`, or `labels`.
        groups: [N] group ids, or None; a group is never split.
        times: [N] row times, or None; larger is newer.
        rows_read: all rows of the data, including those without a target.
        excluded: columns that are not features, with the reasons.
    """

    signature: Signature
    table: pd.DataFrame
    labels: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    groups: Indices | None = None
    times: Floats | None = None
    rows_read: int = 0
    excluded: dict[str, str] = field(default_factory=dict)


def define_problem(
    table: Table,
    *,
    target: str,
    task: Task | None,
    config: DatasetConfig,
    known_kinds: dict[str, Kind],
) -> Problem:
    """Define the learning problem: features, target, groups and times.

    Args:
        task: None to choose: classification for text, booleans and at most 20 distinct integers,
            else regression.
        known_kinds: column kinds of the previous version, for columns that are now empty. Without
            one, an empty column is a number.

    Raises:
        DataError: the target is missing, empty, constant, or does not suit the task; there is no
            feature; there are fewer than 20 rows; or times cannot be read.
    """
    frame = table.frame
    for name, role in ((target, "target"), (config.group, "group"), (config.time, "time")):
        if name is not None and name not in frame:
            known = listed(list(map(str, frame)), most=MAX_NAMED)
            raise DataError(f"The {role} column {name!r} does not exist. The columns are: {known}.")
    kept = np.flatnonzero(frame[target].notna())
    if len(kept) < MIN_ROWS:
        found = f"The data has only {counted(len(frame), 'row')}"
        if len(kept) < len(frame):
            found = f"Only {len(kept)} of {counted(len(frame), 'row')} have a target"
        raise DataError(f"{found}; at least {MIN_ROWS} are needed.")
    if len(kept) < len(frame):
        frame = frame.iloc[kept].reset_index(drop=True)
    excluded = {target: "the target"}
    if config.group is not None:
        excluded[config.group] = "the group"
    # A time is a feature only on request: served rows are always newer than the training rows.
    if config.time is not None and config.time not in config.columns:
        excluded[config.time] = "the time; it only decides which rows are held out"
    features = frame[[name for name in frame if name not in excluded]]
    columns = [
        Column(name=name, kind=table.kinds[name] or known_kinds.get(name, "number"))
        for name in map(str, features)
    ]
    if not columns:
        raise DataError("There are no feature columns, only the target.")

    labels, classes = read_target(table, kept, frame[target], task=task, config=config)
    truth = labels
    if classes is not None:
        truth = np.searchsorted(np.unique(labels), labels)
    signature = Signature(
        task="regression" if classes is None else "classification",
        target=target,
        columns=columns,
        classes=classes,
        value_rules=config.value_rules,
        starts=_find_starts(features, columns),
    )
    return Problem(
        signature=signature,
        table=features,
        labels=labels,
        truth=truth,
        groups=None if config.group is None else _read_groups(frame[config.group]),
        times=None if config.time is None else _read_times(table, kept, frame[config.time]),
        rows_read=len(table.frame),
        excluded=excluded,
    )


def _find_starts(features: pd.DataFrame, columns: list[Column]) -> dict[str, datetime]:
    """Return the oldest time of each `datetime` column that is not empty."""
    oldest = {
        column.name: float(features[column.name].min())
        for column in columns
        if column.kind == "datetime"
    }
    return {
        name: datetime.fromisoformat(format_time(seconds))
        for name, seconds in oldest.items()
        if not np.isnan(seconds)
    }


def _read_groups(values: pd.Series) -> Indices:
    """Return an id per group, hashed from its name; each row without a group is its own."""
    known = pd.util.hash_pandas_object(values, index=False).to_numpy()
    groups = np.where(values.isna(), -1, (known >> 2).astype(np.int64))
    alone = groups < 0
    groups[alone] = -1 - np.arange(alone.sum())
    return groups


def _read_times(table: Table, kept: Indices, values: pd.Series) -> Floats:
    """Return times in seconds, or numbers as they are; −∞ where the time is missing."""
    if not isinstance(values.dtype, pd.CategoricalDtype):
        times = values.to_numpy(dtype=np.float64)
        return np.where(np.isnan(times), -np.inf, times)
    texts = pd.Series(values.cat.categories)
    dated = texts.where(texts.str.match(r"\d{4}"))  # pandas also accepts "now" and "today"
    known = pd.DatetimeIndex(pd.to_datetime(dated, format="ISO8601", utc=True, errors="coerce"))
    codes = values.cat.codes.to_numpy()
    is_bad = np.append(np.asarray(known.isna()), False)[codes]
    if is_bad.any():
        row = int(is_bad.argmax())
        name, count = str(values.name), int(is_bad.sum())
        raise DataError(
            f"The time column {name!r} has {counted(count, 'cell')} that "
            f"{'are' if count > 1 else 'is'} neither a number nor an ISO 8601 time: "
            f"{table.place(int(kept[row]), name)}: {show_value(values.iloc[row])}"
            f"{f' and {count - 1:,} more' if count > 1 else ''}."
        )
    # In nanoseconds, 9999-12-31 would be out of range: it is what many a database has for "never".
    seconds = known.as_unit("us").to_numpy(dtype="datetime64[us]").astype(np.float64) / 1e6
    return np.asarray(np.append(seconds, -np.inf)[codes])
