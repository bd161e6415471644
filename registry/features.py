"""The layout of a model's inputs: one convention for training, export and serving.

A request becomes one array [rows, 1] per column: numbers and booleans are float32 with NaN for
missing values; text and sentences are strings with "" for missing values; times are float64 seconds
since 1970 with NaN for missing values. Numbers and booleans alone form one matrix, `features`
[rows, columns]; otherwise there is one array per column, `column_<i>`, in signature order.

`expand` then turns these into what the model takes, one encoded feature or more per column: a time
becomes its parts (`column_<i>_year`, …), and a sentence its words in lower case.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.datetimes import PARTS, split_times
from registry.records import Column, Signature

Arrays = dict[str, npt.NDArray[Any]]
"""A model's inputs by name."""

MATRIX = "features"
"""The name of the only input of a model with only numbers and booleans."""

_IN_MATRIX = ("number", "boolean")
_EXPANDED = ("datetime", "sentence")
_WORD = re.compile(r"\w+")


def column_input(position: int) -> str:
    """Return the name of the array for the column at a position in the signature."""
    return f"column_{position}"


def feature_names(position: int, column: Column) -> list[str]:
    """Return the names of the encoded features of the column at a position in the signature."""
    name = column_input(position)
    return [f"{name}_{part}" for part in PARTS] if column.kind == "datetime" else [name]


def is_one_matrix(columns: Sequence[Column]) -> bool:
    """Return whether the columns form one matrix, because all are numbers or booleans."""
    return all(column.kind in _IN_MATRIX for column in columns)


def join_columns(arrays: Sequence[npt.NDArray[Any]], *, one_matrix: bool) -> Arrays:
    """Build a request's arrays from one array [rows, 1] per column, in signature order."""
    if one_matrix:
        return {MATRIX: np.hstack(arrays)}
    return {column_input(i): array for i, array in enumerate(arrays)}


def column_values(arrays: Arrays, position: int) -> npt.NDArray[Any]:
    """Return the values [rows] of the column at a position in the signature."""
    matrix = arrays.get(MATRIX)
    return arrays[column_input(position)].ravel() if matrix is None else matrix[:, position]


def needs_expansion(signature: Signature) -> bool:
    """Return whether `expand` changes the arrays."""
    return any(column.kind in _EXPANDED for column in signature.columns)


def expand(arrays: Arrays, signature: Signature) -> Arrays:
    """Return the inputs of the model, each [rows, 1], for the arrays of a request."""
    inputs: Arrays = {}
    for i, column in enumerate(signature.columns):
        values = arrays[column_input(i)]
        match column.kind:
            case "datetime":
                start = signature.start_of(column.name)
                parts = split_times(values, start=start)
                inputs |= dict(zip(feature_names(i, column), parts.values(), strict=True))
            case "sentence":
                words = [split_words(text) for text in values.ravel()]
                inputs[column_input(i)] = np.array(words, dtype=object).reshape(-1, 1)
            case _:
                inputs[column_input(i)] = values
    return inputs


def split_words(sentence: str) -> str:
    """Return the words of a sentence in lower case, separated by spaces.

    The model's graph only splits at spaces: regular expressions and locales differ by runtime.
    """
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", sentence).casefold()))


def count_words(sentence: str) -> int:
    """Return the number of words of a sentence, which is what drift is measured by."""
    return len(_WORD.findall(sentence))
