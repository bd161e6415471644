"""What a buyer reads about a model's columns, from the statistics in its manifest."""

from typing import Any

from pydantic import BaseModel

from registry.datetimes import format_time
from registry.records import ColumnStatistics, Label, Manifest, Value

MIN_ROWS = 5
"""Categories of fewer training rows are not shown: they may identify a person."""

_NOUNS = {
    "number": "A number",
    "boolean": "True or false",
    "text": "A category",
    "datetime": "A date or time in ISO 8601",
    "sentence": "A text",
}
_WITHOUT_STATISTICS: dict[str, Value] = {
    "number": 1.0,
    "boolean": True,
    "datetime": "2026-01-31T12:00:00Z",
}


class ColumnRead(BaseModel):
    """A column: its kind, what training found in it, and a value that it accepts.

    `missing` is a share of the rows. `min` and `max` are numbers, or times in ISO 8601, or null for
    columns of other kinds. `categories` are the most frequent ones; any other text is accepted as
    well.
    """

    name: str
    kind: str
    description: str
    missing: float | None
    min: float | str | None
    max: float | str | None
    categories: list[Label] | None
    example: Value


def describe_columns(manifest: Manifest) -> list[ColumnRead]:
    """Return the columns in signature order; without statistics, only their kinds."""
    found = manifest.statistics.columns if manifest.statistics else []
    known = {column.name: column for column in found}
    return [
        _describe(column.name, column.kind, known.get(column.name))
        for column in manifest.signature.columns
    ]


def _describe(name: str, kind: str, known: ColumnStatistics | None) -> ColumnRead:
    categories = None if known is None else _frequent(known)
    least, most = _range(kind, known)
    return ColumnRead(
        name=name,
        kind=kind,
        description=_sentence(kind, known, categories),
        missing=None if known is None else known.missing,
        min=least,
        max=most,
        categories=categories,
        example=_example(kind, known, categories),
    )


def _range(
    kind: str, known: ColumnStatistics | None
) -> tuple[float, float] | tuple[str, str] | tuple[None, None]:
    """Return the smallest and the largest value of a number or time, as clients send them."""
    if known is None or known.min is None or known.max is None:
        return None, None
    match kind:
        case "number":
            return known.min, known.max
        case "datetime":
            return format_time(known.min), format_time(known.max)
        case _:
            return None, None


def _frequent(known: ColumnStatistics) -> list[Label] | None:
    """Return the categories that enough rows have; None if the column has no categories."""
    if known.categories is None:
        return None
    present = known.count * (1 - known.missing)
    shares = zip(known.categories, known.shares, strict=False)
    return [category for category, share in shares if share * present >= MIN_ROWS - 0.5]


def _sentence(kind: str, known: ColumnStatistics | None, categories: list[Label] | None) -> str:
    facts = []
    if known is not None:
        if known.min is not None and known.max is not None:
            if kind == "datetime":
                facts.append(f"{format_time(known.min)} to {format_time(known.max)}")
            else:
                unit = " words" if kind == "sentence" else ""
                facts.append(f"{known.min:g} to {known.max:g}{unit}")
        if categories and kind != "boolean":
            facts.append(", ".join(map(str, categories)))
        facts.append(f"{known.missing:.1%} missing" if known.missing else "never missing")
    noun = _NOUNS.get(kind, "A value")
    return f"{noun}. In training: {'; '.join(facts)}." if facts else f"{noun}."


def _example(kind: str, known: ColumnStatistics | None, categories: list[Label] | None) -> Value:
    """Return a typical value that is not taken from a single row of the training data."""
    if known is not None and kind == "number":
        value = known.edges[len(known.edges) // 2] if known.edges else known.mean
        if value is not None:
            return int(value) if value.is_integer() else value
    return categories[0] if categories else _WITHOUT_STATISTICS.get(kind, "text")


def show_row(columns: list[ColumnRead]) -> dict[str, Any]:
    """Return an example of a row."""
    return {column.name: column.example for column in columns}
