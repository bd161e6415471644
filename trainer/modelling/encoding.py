"""Encode a table's columns as the features that models take, and as clients send them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.features import column_input, is_one_matrix
from registry.records import Column
from trainer.types import Features, Indices

ROWS_PER_BLOCK = 10_000


def encode(table: pd.DataFrame, columns: list[Column], rows: Indices | None = None) -> Features:
    """Encode the features as models take them; a missing column or cell is NaN or "".

    Numbers become float32, so that training sees exactly what serving does.

    Args:
        rows: positions of the rows to encode; None for all.
    """
    count = len(table) if rows is None else len(rows)
    if is_one_matrix(columns):
        matrix = np.empty((count, len(columns)), dtype=np.float32)
        for i, column in enumerate(columns):
            matrix[:, i] = _encode_column(table, column, rows)
        return matrix
    encoded = {
        column_input(i): _encode_column(table, column, rows) for i, column in enumerate(columns)
    }
    return pd.DataFrame(encoded, index=pd.RangeIndex(count), copy=False)


def encode_in_batches(
    table: pd.DataFrame, columns: list[Column], rows: Indices
) -> Iterator[Features]:
    """Yield encoded features in batches, to bound memory."""
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        yield encode(table, columns, rows[start : start + ROWS_PER_BLOCK])


def to_json(table: pd.DataFrame, columns: list[Column], rows: Indices) -> list[list[Any]]:
    """Return rows as a client would send them: numbers, booleans, text, and None for missing."""
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
    # Via text: the shortest decimal that is the same float32.
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
    # One string object per used category, not per cell; the first is for missing values (−1).
    codes = np.append(values.cat.codes.to_numpy(), -1)
    used, places = np.unique(codes, return_inverse=True)
    names = np.array(["", *values.cat.categories[used[1:]]], dtype=object)
    return np.asarray(names[places[:-1]])
