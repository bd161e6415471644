"""Refuse cells that do not match their column, and describe how unusual columns are read."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from registry.value_rules import ValueRules
from trainer.data.cells import FoundCells, IsWanted, clean_texts, find_cells
from trainer.data.config import DatasetConfig
from trainer.data.dates import is_unclear
from trainer.data.number_formats import NumberStyle, is_worded, parse_numbers
from trainer.data.part import Part
from trainer.data.schema import ColumnSchema
from trainer.errors import DataError
from trainer.types import Mask
from trainer.wording import counted, listed

MIXED_SHARE = 0.5
MAX_NAMED = 5

Schema = dict[str, ColumnSchema]


def check_cells(
    parts: list[Part], schema: Schema, config: DatasetConfig, *, target: str | None
) -> list[str]:
    """Check every cell that may not match its column.

    Returns:
        Sentences about cells that are read as missing, unusual numbers, and columns of text that
        are mostly numbers.

    Raises:
        DataError: a decimal sign is unclear; or a column of numbers or booleans has a few other
            cells, and `bad_cells` is "refuse".
    """
    for name, column in schema.items():
        if column.unclear_in:
            raise _unclear_error(parts, name, column, config.value_rules)
        if column.has_unclear_dates:
            raise _unclear_dates_error(parts, name, config.value_rules)
    return [
        *_check_bad_cells(parts, schema, config, target=target),
        *_describe_styles(parts, schema),
        *_describe_mixed(parts, schema, config),
    ]


def _check_bad_cells(
    parts: list[Part], schema: Schema, config: DatasetConfig, *, target: str | None
) -> list[str]:
    """Refuse cells that are not of their column's kind, or notes that they count as missing."""
    unsure = {
        name: _is_bad(column, config.value_rules)
        for name, column in schema.items()
        if not column.is_sure
    }
    found = {name: each for name, each in find_cells(parts, unsure).items() if each.count}
    if found and config.bad_cells == "refuse":
        name = next(iter(found))
        # The kind of a Parquet column is certain, and a target of numbers is no text.
        is_guessed = name not in config.columns and not any(
            (part.kinds or {}).get(name) not in (None, "text") for part in parts
        )
        may_be_text = is_guessed and name not in (target, config.time)
        raise DataError(
            _refusal(name, schema[name], found[name], may_be_text=may_be_text) + _others(found)
        )
    return [
        f"Column {name!r}: {_describe_bad(schema[name], each)} read as missing: {each}."
        for name, each in found.items()
    ]


def _texts(values: pa.Array, rules: ValueRules) -> pa.Array | None:
    """Return the clean text of a block; None for the numbers and booleans of Parquet."""
    return clean_texts(values, rules) if pa.types.is_large_string(values.type) else None


def _is_bad(column: ColumnSchema, rules: ValueRules) -> IsWanted:
    def is_bad(part: Part, values: pa.Array) -> Mask:
        texts = _texts(values, rules)
        if texts is None:
            return np.zeros(len(values), dtype=np.bool_)
        present = np.asarray(texts.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
        return present & np.isnan(column.parse(texts, part))

    return is_bad


def _describe_bad(column: ColumnSchema, found: FoundCells) -> str:
    is_one = found.count == 1
    cells = f"{counted(found.count, 'cell')} that {'is' if is_one else 'are'} not"
    if column.kind == "boolean":
        return f"{cells} true or false"
    if column.kind == "datetime":
        return f"{cells} {'a date' if is_one else 'dates'}{_describe_order(column)}"
    written = [
        *(["a decimal comma"] if column.style.decimal == "," and not column.other_styles else []),
        *([f'"{column.style.unit}"'] if column.style.unit else []),
    ]
    style = f" with {' and '.join(written)}" if written else ""
    return f"{cells} {'a number' if is_one else 'numbers'}{style}"


def _refusal(name: str, column: ColumnSchema, found: FoundCells, *, may_be_text: bool) -> str:
    or_text = f', or "columns": {{"{name}": "text"}}' if may_be_text else ""
    return (
        f"Column {name!r} has {_describe_bad(column, found)}: {found}. Correct the data, or set "
        f'"bad_cells": "missing"{or_text} in dataset.json.'
    )


def _others(found: Iterable[str]) -> str:
    _, *others = found
    if not others:
        return ""
    return f" The same is true of {listed(list(map(repr, others)), most=MAX_NAMED)}."


def _unclear_error(
    parts: list[Part], name: str, column: ColumnSchema, rules: ValueRules
) -> DataError:
    points = NumberStyle(".", thousands="", unit=column.style.unit)
    commas = NumberStyle(",", thousands="", unit=column.style.unit)

    def find(ours: NumberStyle, other: NumberStyle) -> FoundCells:
        """Find numbers with one sign and no thousands separators."""

        def is_unclear(part: Part, values: pa.Array) -> Mask:
            texts = _texts(values, rules)
            if texts is None:
                return np.zeros(len(values), dtype=np.bool_)
            return ~np.isnan(parse_numbers(texts, ours)) & np.isnan(parse_numbers(texts, other))

        unclear = [part for part in parts if part.name in column.unclear_in]
        return find_cells(unclear, {name: is_unclear})[name]

    sign, found = "comma", find(commas, points)
    if not found.count:
        sign, found = "point", find(points, commas)
    return DataError(
        f"Column {name!r}: its {sign}s may be decimal {sign}s or thousands separators: {found}. "
        'Set "csv": {"decimal": ","} or {"decimal": "."} in dataset.json.'
    )


def _unclear_dates_error(parts: list[Part], name: str, rules: ValueRules) -> DataError:
    def is_wanted(_: Part, values: pa.Array) -> Mask:
        texts = _texts(values, rules)
        return np.zeros(len(values), dtype=np.bool_) if texts is None else is_unclear(texts)

    found = find_cells(parts, {name: is_wanted})[name]
    shown = f": {found}" if found.count else ""
    return DataError(
        f"Column {name!r}: its dates may have the day or the month first{shown}. "
        'Set "csv": {"dates": "day-first"} or {"dates": "month-first"} in dataset.json.'
    )


def _describe_order(column: ColumnSchema) -> str:
    dates = None if column.scan is None else column.scan.dates
    if dates is None or not dates.day_first + dates.month_first + dates.unclear:
        return ""
    return f" with the {column.order.partition('-')[0]} first"


def _describe_text(name: str, column: ColumnSchema) -> list[str]:
    """Describe columns of dates, of yes and no, and of codes with leading zeros."""
    scan = column.scan
    if scan is None:
        return []
    if column.kind == "datetime" and scan.dates.dates:
        order = _describe_order(column) or (" with the day first" if scan.dates.dotted else "")
        return [f"Column {name!r} is read as dates{order}."]
    if column.kind == "boolean" and scan.answers:
        return [f"Column {name!r} is read as boolean: yes is true, and no is false."]
    if column.kind == "text" and scan.is_padded:
        return [f"Column {name!r} has numbers with leading zeros, and is read as text."]
    return []


def _describe_styles(parts: list[Part], schema: Schema) -> list[str]:
    """Describe columns whose numbers are written in an unusual way."""
    notes = []
    for name, column in schema.items():
        notes += _describe_text(name, column)
        written = [
            *_describe_comma(parts, column),
            *(["thousands separators"] if column.has_groups else []),
            *([f'"{column.style.unit}", which is dropped'] if column.style.unit else []),
            *(["negative numbers in brackets"] if column.has_brackets else []),
        ]
        if written:
            notes.append(f"Column {name!r} is read as numbers with {' and '.join(written)}.")
        if column.is_assumed:
            notes.append(
                f"Column {name!r}: all points are followed by three digits, and are read as "
                'decimal points. If they separate thousands, set "csv": {"decimal": ","} in '
                "dataset.json."
            )
    return notes


def _describe_comma(parts: list[Part], column: ColumnSchema) -> list[str]:
    if not column.is_written:
        return []
    if not column.other_styles:
        return ["a decimal comma"] if column.style.decimal == "," else []
    names = [
        part.name for part in parts if part.kinds is None and column.style_in(part).decimal == ","
    ]
    return [f"a decimal comma (in {listed(names, most=MAX_NAMED)})"]


def _describe_mixed(parts: list[Part], schema: Schema, config: DatasetConfig) -> list[str]:
    """Describe text columns of which at least half of the cells contain numbers."""
    rules, number = config.value_rules, ColumnSchema("number")
    texts = {
        name: column.scan
        for name, column in schema.items()
        if column.kind == "text" and column.scan is not None and not column.scan.is_padded
    }
    mixed = {
        name: _is_bad(number, rules)
        for name, scan in texts.items()
        if scan.numbers >= MIXED_SHARE * scan.present
    }
    worded: dict[str, IsWanted] = {
        name: lambda _, values: is_worded(clean_texts(values, rules))
        for name, scan in texts.items()
        if name not in mixed and scan.worded >= MIXED_SHARE * scan.present
    }
    found = find_cells(parts, mixed | worded)
    notes = []
    for name, cells in found.items():
        verb = "is" if cells.count == 1 else "are"
        numbers = "not a number" if cells.count == 1 else "not numbers"
        notes.append(
            f"Column {name!r} is text: {cells.count:,} of {counted(texts[name].present, 'cell')} "
            f"{verb} {numbers if name in mixed else 'a number and a word'}: {cells}."
        )
    return notes
