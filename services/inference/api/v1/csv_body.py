"""Decode a CSV body into the instances that a JSON body has, so that the same rules apply.

The format is that of RFC 4180: commas, and quotes only around a whole cell. The first row names
the columns, in any order. An empty cell is missing, as are the spellings of the model's value
rules. Blank lines are skipped.
"""

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from registry.value_rules import BLANKS, ValueRules
from services.common.errors import MAX_FIELD_ERRORS, BodyInvalid
from services.inference.api.json_body import SLACK
from services.inference.api.json_structure import MAX_VALUE_BYTES
from services.inference.models.inputs import Inputs

LIGHT_BYTES = 1 << 14
"""The largest body that is decoded within milliseconds."""

_BOM = b"\xef\xbb\xbf"
_is_number = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?").fullmatch
_TRUTHS = {"true": True, "false": False}
_QUOTE, _COMMA, _ENDS = ord('"'), ord(","), (ord("\n"), ord("\r"))

Parse = Callable[[str], Any]

csv.field_size_limit(MAX_VALUE_BYTES)  # the limit of a text in JSON


def read_instances(content: bytes, inputs: Inputs, *, max_rows: int) -> list[Any]:
    """Return the rows as lists in signature order, with the values that JSON would have.

    A cell that is not of its column's kind, and a row with too few or too many cells, are returned
    as they are, for `Inputs.decode` to refuse.

    Raises:
        BodyInvalid: the body is not CSV in UTF-8, has no rows or too many, or its columns are not
            those of the signature; lists up to 50 columns.
    """
    content = content.removeprefix(_BOM)
    _check_structure(content, max_rows=max_rows, width=len(inputs.columns))
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _invalid("The body is not UTF-8.") from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(filter(None, rows), None)
        if header is None:
            raise _no_rows()
        plan = _plan(header, inputs)
        instances: list[Any] = []
        for row in rows:
            if row:
                if len(instances) == max_rows:
                    raise _too_many_rows(max_rows)
                fits = len(row) == len(header)
                instances.append([parse(row[at]) for parse, at in plan] if fits else row)
    except csv.Error as error:
        raise _invalid("The body is not valid CSV, or a cell is longer than 1 MiB.") from error
    if not instances:
        raise _no_rows()
    return instances


def _check_structure(content: bytes, *, max_rows: int, width: int) -> None:
    """Check the quotes, and bound the numbers of cells and lines before they become objects.

    Raises:
        BodyInvalid: a quote is not at the beginning or the end of a cell, or there are more cells
            or lines than a valid body may have.
    """
    characters = np.frombuffer(content, dtype=np.uint8)
    is_quote = characters == _QUOTE
    is_inside = np.logical_xor.accumulate(is_quote)  # whether a quoted cell continues after it
    if len(content) and is_inside[-1]:
        raise _invalid("A quote is not closed.")
    is_beside = is_quote | (characters == _COMMA)
    for end in _ENDS:
        is_beside |= characters == end
    opens, closes = (is_quote & is_inside)[1:], (is_quote & ~is_inside)[:-1]
    if (opens & ~is_beside[:-1]).any() or (closes & ~is_beside[1:]).any():
        raise _invalid('A cell that contains a quote must be quoted, and the quote doubled: "".')

    def count(wanted: int) -> int:
        return int(np.count_nonzero((characters == wanted) & ~is_inside))

    if any(count(end) > max_rows + SLACK for end in _ENDS):
        raise _too_many_rows(max_rows)
    if count(_COMMA) > (max_rows + 1) * width + SLACK:
        raise _invalid("Too many cells.")


def _plan(header: list[str], inputs: Inputs) -> list[tuple[Parse, int]]:
    """Return, in signature order, how to parse each column and its place in a row.

    Raises:
        BodyInvalid: a column is missing, unknown or named twice.
    """
    places: dict[str, int] = {}
    errors: list[dict[str, Any]] = []
    for place, cell in enumerate(header):
        name = cell if cell in inputs.names else cell.strip(BLANKS)
        if name not in inputs.names:
            errors.append(_column_error(name, "Unknown column."))
        elif name in places:
            errors.append(_column_error(name, "The column occurs twice."))
        else:
            places[name] = place
        if len(errors) == MAX_FIELD_ERRORS:
            break
    missing = [column.name for column in inputs.columns if column.name not in places]
    errors = [_column_error(name, "Missing column.") for name in missing] + errors
    if errors:
        raise BodyInvalid(errors)
    rules = inputs.value_rules
    return [(_parser(column.kind, rules), places[column.name]) for column in inputs.columns]


def _parser(kind: str, rules: ValueRules) -> Parse:
    """Return what turns a cell into the value that JSON would have; None is missing."""

    def parse_text(cell: str) -> str | None:
        return cell or None

    def clean(cell: str) -> str | None:
        return rules.clean(cell.strip(BLANKS)) or None

    def parse_number(cell: str) -> float | str | None:
        if _is_number(cell):  # the usual case; `Inputs` knows which numbers mean "missing"
            return float(cell)
        text = clean(cell)
        return float(text) if text is not None and _is_number(text) else text

    def parse_boolean(cell: str) -> bool | str | None:
        text = clean(cell)
        return None if text is None else _TRUTHS.get(text.lower(), text)

    parsers: dict[str, Parse] = {
        "number": parse_number,
        "boolean": parse_boolean,
        "text": parse_text,
    }
    return parsers.get(kind, clean)


def _column_error(name: str, message: str) -> dict[str, Any]:
    return {"loc": ["header", name[:100]], "msg": message}


def _no_rows() -> BodyInvalid:
    return _invalid("There must be a row of column names, and at least one row of values.")


def _too_many_rows(max_rows: int) -> BodyInvalid:
    message = f"Too many rows; the maximum is {max_rows}."
    return BodyInvalid([{"loc": ["instances"], "msg": message}])


def _invalid(message: str) -> BodyInvalid:
    return BodyInvalid([{"loc": ["body"], "msg": message}])
