"""Convert the instances of a request to the inputs of a model, according to its signature.

`registry.features` describes the arrays. Text and times are cleaned by the signature's value rules.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from registry.datetimes import parse_time
from registry.features import MATRIX, Arrays, is_one_matrix, join_columns
from registry.records import Column, Signature
from registry.value_rules import RAW_VALUES, ValueRules
from services.common.errors import MAX_FIELD_ERRORS, BodyInvalid

T = TypeVar("T")

BLOCK_VALUES = 1 << 13
"""Values converted at a time: NumPy blocks all threads while it converts Python objects, and its
BLAS starts threads of its own to add up more than 10,000 numbers."""

_TEXT_BYTES = 96
"""Memory of a short string, with its reference in an array and allocator overhead."""
_LISTS = {list}
_NUMBERS = {int, float}
_NUMBERS_OR_MISSING = _NUMBERS | {type(None)}
_FLOAT32_OVERFLOW = float.fromhex("0x1.ffffffp127")
"""The smallest number that becomes infinite as float32."""


class Inputs:
    """Decodes instances of one signature; created once per loaded version."""

    def __init__(self, signature: Signature) -> None:
        self.columns = signature.columns
        self.value_rules = signature.value_rules or RAW_VALUES
        missing = [n for n in self.value_rules.missing_numbers if abs(n) < _FLOAT32_OVERFLOW]
        self._missing_numbers = np.array(missing, dtype=np.float32)
        self._has_missing_numbers = bool(missing)
        self._names = [column.name for column in signature.columns]
        self.names = frozenset(self._names)
        self._lengths = {len(self._names)}
        kinds = {column.kind for column in signature.columns}
        self.numbers_only = kinds == {"number"}
        self._one_matrix = is_one_matrix(signature.columns)

    def decode(self, instances: list[Any]) -> Arrays:
        """Convert a non-empty list of instances, each an object or a list of values.

        Raises:
            BodyInvalid: an instance does not match the signature; lists up to 50 columns.
        """
        rows: list[list[Any] | None] = instances
        if set(map(type, instances)) != _LISTS or set(map(len, instances)) != self._lengths:
            rows = [self._row(instance) for instance in instances]
        if self.numbers_only and None not in rows:
            matrix = _all_numbers(rows)
            if matrix is not None:
                return {MATRIX: self.blank_missing(matrix)}
        self._check(instances, rows)
        return self._arrays([row for row in rows if row is not None])

    def _row(self, instance: Any) -> list[Any] | None:
        """Return the values in signature order, or None if the instance has the wrong shape."""
        if type(instance) is list:
            return instance if len(instance) == len(self._names) else None
        if type(instance) is dict and instance.keys() == self.names:
            return [instance[name] for name in self._names]
        return None

    def _arrays(self, rows: list[list[Any]]) -> Arrays:
        blocks = [self._block(block) for block in in_blocks(rows, width=len(self.columns))]
        if len(blocks) == 1:
            return blocks[0]
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def _block(self, rows: Sequence[list[Any]]) -> Arrays:
        by_column = list(zip(*rows, strict=True))
        return self.join(
            [
                self._column_array(column.kind, values)
                for column, values in zip(self.columns, by_column, strict=True)
            ]
        )

    def _column_array(self, kind: str, values: Sequence[Any]) -> npt.NDArray[Any]:
        if kind in TEXTS:
            return text_array(values, self.value_rules)
        if kind == "datetime":
            return time_array(values, self.value_rules)
        numbers = number_array(values)
        return self.blank_missing(numbers) if kind == "number" else numbers

    def blank_missing(self, numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Replace the numbers that mean "missing" with NaN, in place."""
        if self._has_missing_numbers:
            numbers[np.isin(numbers, self._missing_numbers)] = np.nan
        return numbers

    def join(self, arrays: list[npt.NDArray[Any]]) -> Arrays:
        """Build the model's inputs from one array [rows, 1] per column, in signature order."""
        return join_columns(arrays, one_matrix=self._one_matrix)

    def _check(self, instances: list[Any], rows: list[list[Any] | None]) -> None:
        """Reject invalid instances; stops at the number of errors that a response lists."""
        errors = list(islice(self._errors(instances, rows), MAX_FIELD_ERRORS))
        if errors:
            raise BodyInvalid(errors)

    def _errors(
        self, instances: list[Any], rows: list[list[Any] | None]
    ) -> Iterator[dict[str, Any]]:
        for index, (instance, row) in enumerate(zip(instances, rows, strict=True)):
            if row is None:
                yield from self._shape_errors(index, instance)
            else:
                for column, value in zip(self.columns, row, strict=True):
                    if value is not None and not self._fits(column, value):
                        yield _value_error(index, column)

    def _shape_errors(self, index: int, instance: Any) -> Iterator[dict[str, Any]]:
        where: list[Any] = ["instances", index]
        if type(instance) is list:
            wanted, got = len(self._names), len(instance)
            yield {
                "loc": where,
                "msg": f"The length of each row must be {wanted}, not {got}.",
            }
            return
        if type(instance) is not dict:
            yield {
                "loc": where,
                "msg": "Each row must be an object of columns or a list of values.",
            }
            return
        for column in self.columns:
            if column.name not in instance:
                yield {"loc": [*where, column.name], "msg": "Missing column."}
        for name in instance:
            if name not in self.names:
                yield {"loc": [*where, name[:100]], "msg": "Unknown column."}
        for column in self.columns:
            value = instance.get(column.name)
            if value is not None and not self._fits(column, value):
                yield _value_error(index, column)

    def _fits(self, column: Column, value: Any) -> bool:
        if column.kind == "datetime":
            return type(value) is str and is_time(value, self.value_rules)
        return _FITS[column.kind](value)


def _value_error(index: int, column: Column) -> dict[str, Any]:
    return {"loc": ["instances", index, column.name], "msg": _WANTED[column.kind]}


def in_blocks(values: Sequence[T], *, width: int = 1) -> Iterator[Sequence[T]]:
    """Split rows of `width` values into blocks of about `BLOCK_VALUES` values."""
    rows = max(1, BLOCK_VALUES // width)
    if len(values) <= rows:
        yield values
        return
    for start in range(0, len(values), rows):
        yield values[start : start + rows]


def retained_bytes(arrays: Arrays) -> int:
    """Estimate how many bytes the arrays keep in memory, apart from the request's body."""
    size = 0
    for array in arrays.values():
        size += array.size * _TEXT_BYTES if array.dtype.hasobject else array.nbytes
    return size


def types_in(values: Sequence[Any]) -> set[type]:
    """Return the set of the values' types."""
    return {each for block in in_blocks(values) for each in set(map(type, block))}


def _all_numbers(rows: list[Any]) -> npt.NDArray[np.float32] | None:
    """Convert the common case at C speed; return None on any problem, for `_check` to report."""
    if len(rows) * len(rows[0]) <= BLOCK_VALUES:
        return _all_numbers_in_block(rows)
    matrices = []
    for block in in_blocks(rows, width=len(rows[0])):
        matrix = _all_numbers_in_block(block)
        if matrix is None:
            return None
        matrices.append(matrix)
    return np.concatenate(matrices)


def _all_numbers_in_block(rows: Sequence[list[Any]]) -> npt.NDArray[np.float32] | None:
    if not _NUMBERS_OR_MISSING.issuperset(map(type, chain.from_iterable(rows))):
        return None
    matrix = np.array(rows, dtype=np.float64)
    # If the sum of the squares is small enough, so is every number. It is NaN if one is missing.
    if not np.vdot(matrix, matrix) < _FLOAT32_OVERFLOW**2 and np.count_nonzero(
        np.abs(matrix) >= _FLOAT32_OVERFLOW
    ):
        return None
    return matrix.astype(np.float32)


def is_number(value: Any) -> bool:
    """Return whether a value is a number that is finite as float32; booleans are not numbers."""
    return type(value) in _NUMBERS and abs(value) < _FLOAT32_OVERFLOW


_FITS: dict[str, Callable[[Any], bool]] = {
    "number": is_number,
    "boolean": lambda value: type(value) is bool,
    "text": lambda value: type(value) is str,
    "sentence": lambda value: type(value) is str,
}
TEXTS = ("text", "sentence")
"""The kinds whose values are strings for the model too."""
WANTED_TIME = "an ISO 8601 date or time, such as 2026-01-31T14:00:00Z"
_WANTED = {
    "number": "Must be a number within the range of float32, or null.",
    "boolean": "Must be true, false or null.",
    "text": "Must be a string or null.",
    "sentence": "Must be a string or null.",
    "datetime": f"Must be {WANTED_TIME}, or null.",
}


def number_array(values: Sequence[Any]) -> npt.NDArray[np.float32]:
    """Convert numbers, booleans and None (missing) to a column [rows, 1]."""
    blocks = [np.array(block, dtype=np.float64).astype(np.float32) for block in in_blocks(values)]
    return np.concatenate(blocks).reshape(-1, 1)


def text_array(values: Sequence[Any], rules: ValueRules) -> npt.NDArray[np.object_]:
    """Convert strings and None (missing) to a column [rows, 1]."""
    clean = rules.clean
    texts = [clean(value) if value else "" for value in values]
    return np.array(texts, dtype=object).reshape(-1, 1)


def is_time(text: str, rules: ValueRules) -> bool:
    """Return whether a text is an ISO 8601 time, or means "missing"."""
    cleaned = rules.clean(text)
    if not cleaned:
        return True
    try:
        parse_time(cleaned)
    except ValueError:
        return False
    return True


def time_array(values: Sequence[Any], rules: ValueRules) -> npt.NDArray[np.float64]:
    """Convert ISO 8601 times and None (missing) to a column [rows, 1] of seconds since 1970.

    Raises:
        ValueError: a value is neither; see `is_time`.
    """
    texts = [rules.clean(value) if value else "" for value in values]
    seconds = [parse_time(text) if text else np.nan for text in texts]
    return np.array(seconds, dtype=np.float64).reshape(-1, 1)
