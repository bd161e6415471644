"""Turn a playground's fields into a row, as JSON has it, and the API's errors back into fields."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

RESERVED = frozenset({"csrf", "once", "action"})
"""Fields of the playground itself; a column of such a name has a field `column.<name>`."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,15}", re.ASCII)
_BOOLEANS = {"true": True, "false": False}
_LOCATION = re.compile(r"instances\.0\.(.+)", re.DOTALL)


def field_name(column: str) -> str:
    """Return the name of a column's field: its own."""
    return f"column.{column}" if column in RESERVED else column


def read_row(columns: Sequence[Mapping[str, Any]], fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the row that someone entered.

    An empty field is missing. What is not of its column's kind stays text, which the API refuses
    with its own words.
    """
    return {
        column["name"]: _value(column["kind"], fields.get(field_name(column["name"]), ""))
        for column in columns
    }


def _value(kind: str, text: str) -> Any:
    text = text.strip()
    if not text:
        return None
    if kind == "number":
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _NUMBER.fullmatch(text) else text
    if kind == "boolean":
        return _BOOLEANS.get(text.lower(), text)
    return text


def example_fields(columns: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the fields of an example row."""
    return {field_name(each["name"]): _text(each["example"]) for each in columns}


def field_errors(errors: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the API's errors by field, and those that are about no field."""
    by_field, others = {}, []
    for location, text in errors.items():
        found = _LOCATION.fullmatch(location)
        if found:
            by_field[field_name(found[1])] = text
        else:
            others.append(text)
    return by_field, others


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
