"""The layout of a model's inputs: one convention for training, export and serving.

Numbers and booleans are float32 with NaN for missing values; text is strings with "" for missing
values. A model without text columns has one input, `features` [rows, columns]. Any other has one
input per column, `column_<i>` [rows, 1], in signature order.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.records import Column

Arrays = dict[str, npt.NDArray[Any]]
"""A model's inputs by name."""

MATRIX = "features"
"""The name of the only input of a model without text columns."""


def column_input(position: int) -> str:
    """Return the name of the input for the column at a position in the signature."""
    return f"column_{position}"


def is_one_matrix(columns: Sequence[Column]) -> bool:
    """Return whether the columns form one matrix, because none of them is text."""
    return all(column.kind != "text" for column in columns)


def join_columns(arrays: Sequence[npt.NDArray[Any]], *, one_matrix: bool) -> Arrays:
    """Build a model's inputs from one array [rows, 1] per column, in signature order."""
    if one_matrix:
        return {MATRIX: np.hstack(arrays)}
    return {column_input(i): array for i, array in enumerate(arrays)}


def column_values(arrays: Arrays, position: int) -> npt.NDArray[Any]:
    """Return the values [rows] of the column at a position in the signature."""
    matrix = arrays.get(MATRIX)
    return arrays[column_input(position)].ravel() if matrix is None else matrix[:, position]
