"""Decide each column's kind and number format, from all of its cells."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from services.common.features import ValueRules
from trainer.data.cells import FoundCells, IsWanted, clean_texts, find_cells
from trainer.data.config import CsvSettings, DatasetConfig
from trainer.data.number_formats import (
    PLAIN,
    CellScan,
    Decimal,
    NumberStyle,
    is_worded,
    parse_numbers,
    parse_truths,
)
from trainer.data.part import Part
from trainer.errors import DataError
from trainer.types import Floats, Kind, Mask

# A column is numeric if at most this share of its cells is other text. Placeholders such as "n/a"
# do not count.
MAX_BAD_SHARE = 0.1
MIXED_SHARE = 0.5
MAX_NAMED = 5
_OTHER_SIGN: dict[str, Decimal] = {",": ".", ".": ","}


@dataclass(frozen=True)
class ColumnForm:
    """How a column is read.

    Args:
        kind: None if the column is empty.
        style: how its numbers are written, if they are text.
        is_sure: whether every cell is known to match `kind` and `style`.
        is_unclear: whether a comma may be a decimal comma or a thousands separator.
        is_written: whether its numbers are text with a decimal sign.
        has_groups: whether it has numbers such as `1,234.50`.
        has_brackets: whether it has numbers such as `(12)`.
    """

    kind: Kind | None
    style: NumberStyle = PLAIN
    is_sure: bool = True
    is_unclear: bool = False
    is_written: bool = False
    has_groups: bool = False
    has_brackets: bool = False


@dataclass(frozen=True)
class Forms:
    """The forms of all columns, and notes for the user, in sentences."""

    columns: dict[str, ColumnForm]
    notes: list[str]


def decide_forms(
    parts: list[Part], names: list[str], config: DatasetConfig, *, target: str | None
) -> Forms:
    """Decide the kind of each column from `dataset.json`, Parquet types and text cells.

    A text column is `boolean` if all its cells are true or false, `number` if they are numbers,
    else `text`. Parquet types are kept, except for text that `dataset.json` declares as another
    kind.

    Raises:
        DataError: a column does not have the declared kind, or has different kinds in two parts; a
            numeric column has a few other cells and `bad_cells` is "refuse"; or a comma may be a
            decimal comma or a thousands separator.
    """
    rules = config.value_rules
    typed = _typed_kinds(parts, names, config.columns)
    wishes = {name: config.columns.get(name) or typed.get(name) for name in names}
    scans = _scan(parts, names, wishes, rules)
    forms = {name: ColumnForm(wishes[name]) for name in names}
    forms |= choose_forms(scans, wishes, config.csv)

    if unclear := [name for name, form in forms.items() if form.is_unclear]:
        raise _unclear_error(parts, unclear[0], forms[unclear[0]].style.unit, rules)
    notes = [
        *_check_cells(parts, forms, config, target=target, typed=typed),
        *_describe_styles(forms),
        *_describe_mixed(parts, forms, scans, wishes, rules),
    ]
    return Forms(forms, notes)


def read_floats(values: pa.Array, form: ColumnForm, rules: ValueRules) -> Floats:
    """Return a column of a block as float64: NaN for missing, 1 and 0 for true and false."""
    if pa.types.is_large_string(values.type):
        texts = clean_texts(values, rules)
        numbers = (
            parse_truths(texts) if form.kind == "boolean" else parse_numbers(texts, form.style)
        )
    else:
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.float64())
        numbers = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    if form.kind == "number" and rules.missing_numbers:
        with np.errstate(over="ignore"):  # `table` refuses numbers that are too large
            missing = np.array(rules.missing_numbers)
            is_missing = np.isin(numbers, missing)
            # Serving sees float32.
            is_missing |= np.isin(numbers.astype(np.float32), missing.astype(np.float32))
        return np.where(is_missing, np.nan, numbers)
    return numbers


def choose_forms(
    scans: dict[str, CellScan], wishes: dict[str, Kind | None], settings: CsvSettings
) -> dict[str, ColumnForm]:
    """Choose the kind and style of scanned columns; one column's decimal sign settles another's."""
    kinds = {name: wishes[name] or _choose_kind(scan) for name, scan in scans.items()}
    numbers = [scan for name, scan in scans.items() if kinds[name] == "number"]
    signs = {scan.certain_decimal for scan in numbers} - {None}
    configured = settings.decimal or _OTHER_SIGN.get(settings.thousands or "")
    common = configured or (signs.pop() if len(signs) == 1 else None)
    forms = {}
    for name, scan in scans.items():
        if kinds[name] != "number":
            is_sure = kinds[name] != "boolean" or scan.truths == scan.present
            forms[name] = ColumnForm(kinds[name], is_sure=is_sure)
            continue
        decimal = configured or scan.certain_decimal or common or "."
        forms[name] = ColumnForm(
            "number",
            NumberStyle(decimal, settings.thousands, scan.unit),
            is_sure=_is_sure(scan) and configured is None and settings.thousands is None,
            is_unclear=scan.is_unclear and common is None,
            is_written=scan.certain_decimal is not None or scan.is_unclear,
            has_groups=bool(
                scan.grouped + (scan.comma_unclear if decimal == "." else scan.point_unclear)
            ),
            has_brackets=scan.bracketed > 0,
        )
    return forms


def _choose_kind(scan: CellScan) -> Kind | None:
    if not scan.present:
        return None
    counts: tuple[tuple[Kind, int], ...] = (("boolean", scan.truths), ("number", scan.numbers))
    for kind, count in counts:
        words = scan.present - count - scan.placeholders
        if count and words <= MAX_BAD_SHARE * (count + words):
            return kind
    return "text"


def _is_sure(scan: CellScan) -> bool:
    """Return whether every cell is a number in one style."""
    return (
        scan.numbers == scan.present
        and len(scan.units) <= 1
        and not (scan.point_only and scan.comma_only)
    )


def _typed_kinds(
    parts: list[Part], names: list[str], configured: dict[str, Kind]
) -> dict[str, Kind | None]:
    """Return the kinds of columns from their Parquet types, unless they are configured."""
    kinds: dict[str, Kind | None] = {}
    first: dict[str, str] = {}  # the first part that has the kind
    for part in parts:
        for name in names if part.kinds is not None else ():
            kind = (part.kinds or {})[name]
            wish = configured.get(name)
            if wish is not None and kind not in (None, wish, "text"):
                raise DataError(f"{part.name}: the column {name!r} is {kind}, not {wish}.")
            if kind is None or wish is not None:
                continue
            if kinds.setdefault(name, kind) != kind:
                raise DataError(
                    f"{part.name}: the column {name!r} is {kind}, but {kinds[name]} in "
                    f"{first[name]}."
                )
            first.setdefault(name, part.name)
    return kinds


def _scan(
    parts: list[Part], names: list[str], wishes: dict[str, Kind | None], rules: ValueRules
) -> dict[str, CellScan]:
    """Scan all text columns that may hold something else."""
    scans: dict[str, CellScan] = {}
    for part in parts:
        texts = [
            name
            for name in names
            if wishes[name] != "text" and (part.kinds is None or part.kinds[name] == "text")
        ]
        for name in texts:
            scans.setdefault(name, CellScan())
        if not texts:
            continue
        for block in part.read(texts):
            for name in texts:
                scans[name].scan(clean_texts(block[name], rules))
    return scans


def _check_cells(
    parts: list[Part],
    forms: dict[str, ColumnForm],
    config: DatasetConfig,
    *,
    target: str | None,
    typed: dict[str, Kind | None],
) -> list[str]:
    """Refuse cells that are not of their column's kind, or note that they count as missing."""
    rules = config.value_rules
    unsure = {name: _is_bad(form, rules) for name, form in forms.items() if not form.is_sure}
    found = {name: each for name, each in find_cells(parts, unsure).items() if each.count}
    if found and config.bad_cells == "refuse":
        name = next(iter(found))
        raise DataError(
            _refusal(
                name,
                forms[name],
                found[name],
                may_be_text=name not in (target, *typed, *config.columns),
            )
            + _others(found)
        )
    return [
        f"Column {name!r}: {_describe_bad(forms[name], each)} read as missing: {each}."
        for name, each in found.items()
    ]


def _is_bad(form: ColumnForm, rules: ValueRules) -> IsWanted:
    def is_bad(values: pa.Array) -> Mask:
        if not pa.types.is_large_string(values.type):
            return np.zeros(len(values), dtype=np.bool_)
        texts = clean_texts(values, rules)
        present = np.asarray(texts.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
        parse = parse_truths(texts) if form.kind == "boolean" else parse_numbers(texts, form.style)
        return present & np.isnan(parse)

    return is_bad


def _describe_bad(form: ColumnForm, found: FoundCells) -> str:
    are_not = "cell that is not" if found.count == 1 else "cells that are not"
    if form.kind == "boolean":
        return f"{found.count:,} {are_not} true or false"
    written = [
        *(["a decimal comma"] if form.style.decimal == "," else []),
        *([f'"{form.style.unit}"'] if form.style.unit else []),
    ]
    what = "a number" if found.count == 1 else "numbers"
    return f"{found.count:,} {are_not} {what}" + "".join(f" with {sign}" for sign in written)


def _refusal(name: str, form: ColumnForm, found: FoundCells, *, may_be_text: bool) -> str:
    or_text = f', or "columns": {{"{name}": "text"}}' if may_be_text else ""
    return (
        f"Column {name!r} has {_describe_bad(form, found)}: {found}. Correct the data, or set "
        f'"bad_cells": "missing"{or_text} in dataset.json.'
    )


def _others(found: Iterable[str]) -> str:
    _, *others = found
    if not others:
        return ""
    more = f" and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
    return f" The same is true of {', '.join(map(repr, others[:MAX_NAMED]))}{more}."


def _unclear_error(parts: list[Part], name: str, unit: str, rules: ValueRules) -> DataError:
    def has_comma(values: pa.Array) -> Mask:
        if not pa.types.is_large_string(values.type):
            return np.zeros(len(values), dtype=np.bool_)
        texts = clean_texts(values, rules)
        point = parse_numbers(texts, NumberStyle(".", thousands="", unit=unit))
        comma = parse_numbers(texts, NumberStyle(",", thousands="", unit=unit))
        return np.isnan(point) & ~np.isnan(comma)

    found = find_cells(parts, {name: has_comma})[name]
    return DataError(
        f"Column {name!r}: its commas may be decimal commas or thousands separators: {found}. "
        'Set "csv": {"decimal": ","} or {"decimal": "."} in dataset.json.'
    )


def _describe_styles(forms: dict[str, ColumnForm]) -> list[str]:
    """Describe columns whose numbers are written in an unusual way."""
    notes = []
    for name, form in forms.items():
        written = [
            *(["a decimal comma"] if form.style.decimal == "," and form.is_written else []),
            *(["thousands separators"] if form.has_groups else []),
            *([f'"{form.style.unit}", which is dropped'] if form.style.unit else []),
            *(["negative numbers in brackets"] if form.has_brackets else []),
        ]
        if written:
            notes.append(f"Column {name!r} is read as numbers with {' and '.join(written)}.")
    return notes


def _describe_mixed(
    parts: list[Part],
    forms: dict[str, ColumnForm],
    scans: dict[str, CellScan],
    wishes: dict[str, Kind | None],
    rules: ValueRules,
) -> list[str]:
    """Describe text columns of which at least half of the cells contain numbers."""
    number = ColumnForm("number")
    texts = {
        name: scan
        for name, scan in scans.items()
        if forms[name].kind == "text" and wishes[name] is None
    }
    mixed = {
        name: _is_bad(number, rules)
        for name, scan in texts.items()
        if scan.numbers >= MIXED_SHARE * scan.present
    }
    worded: dict[str, IsWanted] = {
        name: lambda values: is_worded(clean_texts(values, rules))
        for name, scan in texts.items()
        if name not in mixed and scan.worded >= MIXED_SHARE * scan.present
    }
    found = find_cells(parts, mixed | worded)
    return [
        f"Column {name!r} is text: {found[name].count:,} of {scans[name].present:,} cells are not "
        f"numbers: {found[name]}."
        for name in mixed
    ] + [
        f"Column {name!r} is text: {found[name].count:,} of {scans[name].present:,} cells are a "
        f"number and a word: {found[name]}."
        for name in worded
    ]
