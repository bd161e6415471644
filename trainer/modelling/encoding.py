"""Encode a table's columns as the features that models take, and as clients send them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.datetimes import format_time, split_times
from registry.features import (
    Arrays,
    column_input,
    feature_names,
    is_one_matrix,
    join_columns,
    split_words,
)
from registry.records import Column, Signature
from trainer.types import Features, Indices

ROWS_PER_BLOCK = 10_000
ROWS_OF_SENTENCES_PER_BLOCK = 1_000  # each is up to a thousand numbers in the model's graph
TEXTS = ("text", "sentence")


def encode(
    table: pd.DataFrame,
    signature: Signature,
    rows: Indices | None = None,
    *,
    expanded: bool = True,
) -> Features:
    """Encode the features as models take them; a missing column or cell is NaN or "".

    Numbers become float32, so that training sees exactly what serving does.

    Args:
        rows: positions of the rows to encode; None for all.
        expanded: whether as `registry.features.expand` does; models of the owner's do not want it.
    """
    columns = signature.columns
    count = len(table) if rows is None else len(rows)
    if is_one_matrix(columns):
        matrix = np.empty((count, len(columns)), dtype=np.float32)
        for i, column in enumerate(columns):
            matrix[:, i] = _read_column(table, column, rows)
        return matrix
    encoded: dict[str, npt.NDArray[Any]] = {}
    for i, column in enumerate(columns):
        if column.kind == "datetime" and expanded:
            times = _read_column(table, column, rows)
            parts = split_times(times, start=signature.start_of(column.name))
            encoded |= dict(zip(feature_names(i, column), parts.values(), strict=True))
        else:
            change = split_words if column.kind == "sentence" and expanded else str
            encoded[column_input(i)] = _read_column(table, column, rows, change)
    return pd.DataFrame(encoded, index=pd.RangeIndex(count), copy=False)


def encode_in_batches(
    table: pd.DataFrame, signature: Signature, rows: Indices, *, expanded: bool = True
) -> Iterator[Features]:
    """Yield encoded features in batches, to bound memory."""
    parts = _in_blocks(signature, rows)
    return (encode(table, signature, part, expanded=expanded) for part in parts)


def to_arrays_in_batches(
    table: pd.DataFrame, signature: Signature, rows: Indices
) -> Iterator[Arrays]:
    """Yield rows as the arrays of requests, in batches, to bound memory."""
    return (to_arrays(table, signature, part) for part in _in_blocks(signature, rows))


def _in_blocks(signature: Signature, rows: Indices) -> Iterator[Indices]:
    has_sentences = any(column.kind == "sentence" for column in signature.columns)
    size = ROWS_OF_SENTENCES_PER_BLOCK if has_sentences else ROWS_PER_BLOCK
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def to_arrays(table: pd.DataFrame, signature: Signature, rows: Indices) -> Arrays:
    """Return rows as the arrays of a request, not expanded (see `registry.features`)."""
    arrays = [_read_column(table, column, rows).reshape(-1, 1) for column in signature.columns]
    return join_columns(arrays, one_matrix=is_one_matrix(signature.columns))


def to_json(table: pd.DataFrame, columns: list[Column], rows: Indices) -> list[list[Any]]:
    """Return rows as a client would send them: numbers, booleans, text, and None for missing."""
    shown = [
        [_to_json_cell(cell, column) for cell in _read_column(table, column, rows)]
        for column in columns
    ]
    return [list(row) for row in zip(*shown, strict=True)]


def _to_json_cell(cell: Any, column: Column) -> Any:
    if column.kind in TEXTS:
        return str(cell) or None
    if np.isnan(cell):
        return None
    match column.kind:
        case "datetime":
            return format_time(float(cell))
        case "boolean":
            return bool(cell)
        case _:
            # Via text: the shortest decimal that is the same float32.
            return float(str(cell))


def _read_column(
    table: pd.DataFrame,
    column: Column,
    rows: Indices | None,
    change: Callable[[str], str] = str,
) -> npt.NDArray[Any]:
    """Return a column as a request's array has it, but flat.

    Args:
        change: what to do with each distinct text.
    """
    values = table.get(column.name)
    if values is not None and rows is not None:
        values = values.iloc[rows]
    count = len(table) if rows is None else len(rows)
    is_text = values is not None and isinstance(values.dtype, pd.CategoricalDtype)
    if column.kind not in TEXTS:
        dtype = np.float64 if column.kind == "datetime" else np.float32
        if values is None or is_text:
            return np.full(count, np.nan, dtype=dtype)
        return np.asarray(values, dtype=dtype)
    if values is None or not is_text:
        return np.full(count, "", dtype=object)
    # One string object per used category, not per cell; the first is for missing values (−1).
    codes = np.append(values.cat.codes.to_numpy(), -1)
    used, places = np.unique(codes, return_inverse=True)
    names = np.array(["", *map(change, values.cat.categories[used[1:]])], dtype=object)
    return np.asarray(names[places[:-1]])
