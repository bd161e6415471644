"""The JSON schema of a model's rows."""

from collections.abc import Sequence
from typing import Any

from services.inference.catalogue.columns import ColumnRead

Schema = dict[str, Any]

_SCHEMA_OF_KIND: dict[str, Schema] = {
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
}
"""The schema of a value of each kind of column; all others are strings."""


def as_object(columns: Sequence[ColumnRead]) -> Schema:
    """Return the schema of a row that names its columns."""
    return {
        "type": "object",
        "description": "A row by column names. null is a missing value.",
        "required": [column.name for column in columns],
        "additionalProperties": False,
        "properties": {
            column.name: {
                **_schema_of(column),
                "type": [_schema_of(column)["type"], "null"],
                "description": column.description,
                "examples": [column.example],
            }
            for column in columns
        },
    }


def as_list(columns: Sequence[ColumnRead]) -> Schema:
    """Return the schema of a row whose values are in the order of the columns."""
    types = sorted({_schema_of(column)["type"] for column in columns})
    return {
        "type": "array",
        "minItems": len(columns),
        "maxItems": len(columns),
        "items": {"type": [*types, "null"]},
    }


def _schema_of(column: ColumnRead) -> Schema:
    return _SCHEMA_OF_KIND.get(column.kind, {"type": "string"})
