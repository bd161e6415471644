"""Notes of a training run about its data: what was read, dropped, ignored and truncated."""

import numpy as np
import pandas as pd

from trainer.data.download import Dataset
from trainer.data.problem import Problem
from trainer.data.table import Table
from trainer.modelling.candidates import MAX_CATEGORIES, MAX_NATIVE_CATEGORIES
from trainer.types import Family, Indices, Mask

MAX_NAMED = 20


def describe_data(dataset: Dataset, table: Table, problem: Problem) -> list[str]:
    """Return sentences about what was read and how much of it is used."""
    rows, parts = problem.rows_read, len(dataset.parts)
    notes = [f"Read {rows:,} rows from {parts:,} file{'s' if parts > 1 else ''}.", *dataset.notes]
    notes += table.notes
    if dropped := rows - len(problem.table):
        notes.append(
            f"Dropped {dropped:,} row{'s' if dropped > 1 else ''} without a value in the target "
            f"{problem.signature.target!r}; {len(problem.table):,} are left."
        )
    columns = problem.signature.columns
    notes.append(f"Columns: {_list([f'{column.name} ({column.kind})' for column in columns])}.")
    if ignored := table.ignored | problem.excluded:
        unused = [f"{name} ({reason})" for name, reason in ignored.items()]
        notes.append(f"Not used as columns: {_list(unused)}.")
    empty = [column.name for column in columns if problem.table[column.name].isna().all()]
    if empty:
        notes.append(f"Empty columns: {_list(empty)}.")
    return notes


def describe_categories(problem: Problem, rows: Indices, family: Family) -> list[str]:
    """Return a sentence for each text column with more categories than the model can use.

    Args:
        rows: the rows that the model is fitted on.
    """
    most = MAX_NATIVE_CATEGORIES if family == "categorical_boosting" else MAX_CATEGORIES
    notes = []
    for column in problem.signature.columns:
        values: pd.Series = problem.table[column.name]
        if column.kind != "text" or not isinstance(values.dtype, pd.CategoricalDtype):
            continue
        codes = values.cat.codes.to_numpy()[rows]
        count = int(np.count_nonzero(np.bincount(codes[codes >= 0])))
        if count > most:
            notes.append(
                f"Column {column.name!r} has {count:,} categories in the training rows; the "
                f"{most} most frequent are used, the other {count - most:,} count as unknown."
                f"{_hint(values)}"
            )
    return notes


def describe_times(
    problem: Problem, name: str | None, held_out: Mask, *, is_text: bool
) -> list[str]:
    """Return a sentence about how the time column splits the rows, if there is one.

    Args:
        is_text: whether the times are dates rather than numbers.
    """
    if name is None or problem.times is None:
        return []
    first = float(problem.times[held_out].min())
    shown = f"{pd.Timestamp(first, unit='s', tz='UTC'):%Y-%m-%dT%H:%M:%SZ}" if is_text else first
    without = int(np.isneginf(problem.times).sum())
    more = f" Rows without a time count as older than all others ({without:,})." if without else ""
    return [
        f"The {int(held_out.sum()):,} rows with {name!r} from {shown} on are held out to evaluate "
        f"the model.{more}"
    ]


def _hint(values: pd.Series) -> str:
    """Return advice for a column of dates, of which each is a category of its own."""
    sample = values.cat.categories[:100]
    if not sample.str.contains(r"^\d{4}-\d\d-\d\d", regex=True).all():
        return ""
    is_time = pd.to_datetime(sample, format="ISO8601", utc=True, errors="coerce").notna().all()
    if not is_time:
        return ""
    return " They are dates; numeric columns derived from them, such as the weekday, work better."


def _list(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
