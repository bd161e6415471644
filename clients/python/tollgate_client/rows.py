"""The rows of a call as JSON: from lists of dicts or lists, and from DataFrames."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Union

from tollgate_client.errors import InvalidInputError
from tollgate_client.given import Row
from tollgate_client.problems import with_errors

Instance = Union["dict[str, Any]", "list[Any]"]
"""A row whose values are those of JSON; None is a missing value."""

_MAX_ERRORS = 50
_PLAIN = frozenset({bool, int, str, type(None)})


class Rows:
    """The rows of a call, whatever they were given as; a DataFrame is `frame`."""

    def __init__(self, given: Any) -> None:
        self.frame = given if is_frame(given) else None
        if self.frame is not None:
            self._names = _column_names(self.frame)
        else:
            if hasattr(given, "tolist"):  # a NumPy array
                given = given.tolist()
            if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
                raise _refused("Must be a list of rows, or a DataFrame.")
            self._rows: Sequence[Row] = given
        self.count = len(given)
        if self.count == 0:
            raise _refused("There must be at least one row.")

    def instances(self, start: int, stop: int) -> list[Instance]:
        """Return the rows from `start` up to `stop` with values that JSON has.

        Raises:
            InvalidInputError: a value cannot be sent, such as an infinite number.
        """
        errors: list[dict[str, Any]] = []
        if self.frame is not None:
            part = self._from_frame(start, stop, errors)
        else:
            part = [
                _instance(self._rows[at], at, errors)
                for at in range(start, stop)
                if len(errors) < _MAX_ERRORS
            ]
        if errors:
            raise invalid("The rows cannot be sent.", errors[:_MAX_ERRORS])
        return part

    def _from_frame(self, start: int, stop: int, errors: list[dict[str, Any]]) -> list[Instance]:
        part = self.frame.iloc[start:stop]  # type: ignore[union-attr]
        columns = []
        for place in range(len(part.columns)):
            column = part.iloc[:, place]
            name = place if self._names is None else self._names[place]
            values = column.astype(object).where(column.notna(), None).tolist()
            columns.append(
                [_clean(value, (start + i, name), errors) for i, value in enumerate(values)]
            )
        if not columns:
            return [{} for _ in range(start, stop)]
        if self._names is None:
            return [list(row) for row in zip(*columns)]
        return [dict(zip(self._names, row)) for row in zip(*columns)]


def is_frame(given: Any) -> bool:
    """Return whether rows are a DataFrame; pandas is not imported for that."""
    return hasattr(given, "iloc") and hasattr(given, "columns")


def encode(document: Any) -> bytes:
    """Return a request's body; the same document always has the same bytes.

    Raises:
        InvalidInputError: a text is not Unicode.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass
    raise invalid("The rows cannot be sent.", [{"loc": ["instances"], "msg": "Not Unicode text."}])


def invalid(text: str, errors: list[dict[str, Any]]) -> InvalidInputError:
    """Return an error that was found before anything was sent."""
    return InvalidInputError(with_errors(text, errors), errors=errors)


def _refused(message: str) -> InvalidInputError:
    return invalid("The rows cannot be sent.", [{"loc": ["instances"], "msg": message}])


def _column_names(frame: Any) -> list[str] | None:
    """Return the names of the columns; None if they are only numbered, in the model's order."""
    names = list(frame.columns)
    if names and names == list(range(len(names))):
        return None
    if not all(isinstance(name, str) for name in names):
        raise _refused("The names of the columns must be strings.")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise _refused(f"Columns occur twice: {', '.join(map(repr, twice))}.")
    return names


def _instance(row: Any, at: int, errors: list[dict[str, Any]]) -> Instance:
    if isinstance(row, Mapping):
        if not all(isinstance(name, str) for name in row):
            errors.append(_error((at,), "The names of the columns must be strings."))
            return {}
        return {name: _clean(value, (at, name), errors) for name, value in row.items()}
    if hasattr(row, "tolist"):
        row = row.tolist()
    if isinstance(row, Sequence) and not isinstance(row, (str, bytes)):
        return [_clean(value, (at, place), errors) for place, value in enumerate(row)]
    errors.append(_error((at,), "Must be a dict or a list."))
    return []


def _clean(value: Any, where: tuple[Any, ...], errors: list[dict[str, Any]]) -> Any:
    """Return a value as JSON has it: missing values are null, times are ISO 8601."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        if math.isnan(value):
            return None
        errors.append(_error(where, "Must be finite."))
        return None
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a scalar of NumPy
        plain = value.item()
        if type(plain) is not type(value):
            return _clean(plain, where, errors)
    if isinstance(value, (bool, int, str)):  # a subclass, such as an Enum's member
        return value
    errors.append(_error(where, f"Cannot send a value of type {type(value).__name__!r}."))
    return None


def _error(where: tuple[Any, ...], message: str) -> dict[str, Any]:
    return {"loc": ["instances", *where], "msg": message}
