"""What each column is, and how its numbers are written: decided once, from all of its cells."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from services.common.features import ValueRules
from trainer.cells import Found, IsWanted, clean_texts, find_cells
from trainer.dataset_file import CsvSettings, DatasetFile
from trainer.errors import DataError
from trainer.kinds import Floats, Kind, Mask
from trainer.parts import Part
from trainer.written_numbers import (
    PLAIN,
    CellScan,
    Decimal,
    NumberStyle,
    is_worded,
    parse_numbers,
    parse_truths,
)

# A column is numbers but for a few cells if at most this share of them are other words; those that
# only say "there is no value" do not count.
FEW = 0.1
MANY = 0.5
MOST_NAMED = 5
_OTHER_SIGN: dict[str, Decimal] = {",": ".", ".": ","}


@dataclass(frozen=True)
class ColumnForm:
    """How a column is read.

    Args:
        kind: None if there is nothing in it.
        style: of its numbers, where they are written as text.
        is_sure: whether no cell can be another thing than `kind` and `style` say.
        is_unclear: whether a comma in its numbers may be a decimal comma or separate thousands.
        is_written: whether its numbers are text, with a decimal sign.
        has_groups, has_brackets: whether there are numbers like `1,234.50`, and like `(12)`.
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
    """The forms of all columns, and what a person should know of them, in sentences."""

    columns: dict[str, ColumnForm]
    notes: list[str]


def decide_forms(
    parts: list[Part], names: list[str], stated: DatasetFile, *, target: str | None
) -> Forms:
    """Decide what the columns are, by what is stated, Parquet's types, and the cells of text.

    A text column is `boolean` if all its cells are true or false, `number` if they are numbers,
    else `text`. Parquet's types stand, but for text that is stated to be something else.

    Raises:
        DataError: a column is of another kind than is stated, or not the same in all parts; it is
            numbers but for a few cells, and `bad_cells` does not say that these are missing; or
            its commas may be decimal signs or not.
    """
    rules = stated.value_rules
    typed = _typed_kinds(parts, names, stated.columns)
    wishes = {name: stated.columns.get(name) or typed.get(name) for name in names}
    scans = _scan(parts, names, wishes, rules)
    forms = {name: ColumnForm(wishes[name]) for name in names}
    forms |= choose_forms(scans, wishes, stated.csv)

    if unclear := [name for name, form in forms.items() if form.is_unclear]:
        raise _unclear_error(parts, unclear[0], forms[unclear[0]].style.unit, rules)
    notes = [
        *_check_cells(parts, forms, stated, target=target, typed=typed),
        *_describe_styles(forms),
        *_describe_mixed(parts, forms, scans, wishes, rules),
    ]
    return Forms(forms, notes)


def read_floats(values: pa.Array, form: ColumnForm, rules: ValueRules) -> Floats:
    """Return a block's column as float64, NaN for what is missing; true and false are 1 and 0."""
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
        with np.errstate(over="ignore"):  # what is too large is refused elsewhere
            missing = np.array(rules.missing_numbers)
            is_missing = np.isin(numbers, missing)
            # As serving sees them.
            is_missing |= np.isin(numbers.astype(np.float32), missing.astype(np.float32))
        return np.where(is_missing, np.nan, numbers)
    return numbers


def choose_forms(
    scans: dict[str, CellScan], wishes: dict[str, Kind | None], settings: CsvSettings
) -> dict[str, ColumnForm]:
    """Choose the kind and style of scanned columns; one may show how another is written."""
    kinds = {name: wishes[name] or _choose_kind(scan) for name, scan in scans.items()}
    numbers = [scan for name, scan in scans.items() if kinds[name] == "number"]
    signs = {scan.certain_decimal for scan in numbers} - {None}
    stated = settings.decimal or _OTHER_SIGN.get(settings.thousands or "")
    common = stated or (signs.pop() if len(signs) == 1 else None)
    forms = {}
    for name, scan in scans.items():
        if kinds[name] != "number":
            is_sure = kinds[name] != "boolean" or scan.truths == scan.present
            forms[name] = ColumnForm(kinds[name], is_sure=is_sure)
            continue
        decimal = stated or scan.certain_decimal or common or "."
        forms[name] = ColumnForm(
            "number",
            NumberStyle(decimal, settings.thousands, scan.unit),
            is_sure=_is_sure(scan) and stated is None and settings.thousands is None,
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
        if count and words <= FEW * (count + words):
            return kind
    return "text"


def _is_sure(scan: CellScan) -> bool:
    """Whether every cell is a number of the one style."""
    return (
        scan.numbers == scan.present
        and len(scan.units) <= 1
        and not (scan.point_only and scan.comma_only)
    )


def _typed_kinds(
    parts: list[Part], names: list[str], stated: dict[str, Kind]
) -> dict[str, Kind | None]:
    """The kinds that Parquet's types give to columns whose kind is not stated."""
    kinds: dict[str, Kind | None] = {}
    first: dict[str, str] = {}  # the part that a kind is from
    for part in parts:
        for name in names if part.kinds is not None else ():
            kind = (part.kinds or {})[name]
            wish = stated.get(name)
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
    """Look at all cells that are text and may be something else."""
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
                scans[name].see(clean_texts(block[name], rules))
    return scans


def _check_cells(
    parts: list[Part],
    forms: dict[str, ColumnForm],
    stated: DatasetFile,
    *,
    target: str | None,
    typed: dict[str, Kind | None],
) -> list[str]:
    """Refuse the cells that are not of their column's kind, or note that they are missing."""
    rules = stated.value_rules
    unsure = {name: _is_bad(form, rules) for name, form in forms.items() if not form.is_sure}
    found = {name: each for name, each in find_cells(parts, unsure).items() if each.count}
    if found and stated.bad_cells == "refuse":
        name = next(iter(found))
        raise DataError(
            _refusal(
                name,
                forms[name],
                found[name],
                may_be_text=name not in (target, *typed, *stated.columns),
            )
            + _others(found)
        )
    return [
        f"Column {name!r}: {_say_bad(forms[name], each)} read as missing: {each}."
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


def _say_bad(form: ColumnForm, found: Found) -> str:
    are_not = "cell that is not" if found.count == 1 else "cells that are not"
    if form.kind == "boolean":
        return f"{found.count:,} {are_not} true or false"
    written = [
        *(["a decimal comma"] if form.style.decimal == "," else []),
        *([f'"{form.style.unit}"'] if form.style.unit else []),
    ]
    what = "a number" if found.count == 1 else "numbers"
    return f"{found.count:,} {are_not} {what}" + "".join(f" with {sign}" for sign in written)


def _refusal(name: str, form: ColumnForm, found: Found, *, may_be_text: bool) -> str:
    or_text = f', or "columns": {{"{name}": "text"}}' if may_be_text else ""
    return (
        f"Column {name!r} has {_say_bad(form, found)}: {found}. Correct the data, or set "
        f'"bad_cells": "missing"{or_text} in dataset.json.'
    )


def _others(found: Iterable[str]) -> str:
    _, *others = found
    if not others:
        return ""
    more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
    return f" The same is true of {', '.join(map(repr, others[:MOST_NAMED]))}{more}."


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
        f"Column {name!r}: its commas may be decimal commas or separate thousands: {found}. "
        'State "csv": {"decimal": ","} or {"decimal": "."} in dataset.json.'
    )


def _describe_styles(forms: dict[str, ColumnForm]) -> list[str]:
    """How numbers are written, of the columns in which that is not the usual way."""
    notes = []
    for name, form in forms.items():
        written = [
            *(["a decimal comma"] if form.style.decimal == "," and form.is_written else []),
            *(["separated thousands"] if form.has_groups else []),
            *([f'"{form.style.unit}", which is left out'] if form.style.unit else []),
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
    """Of columns that are text though at least half of their cells have numbers."""
    number = ColumnForm("number")
    texts = {
        name: scan
        for name, scan in scans.items()
        if forms[name].kind == "text" and wishes[name] is None
    }
    mixed = {
        name: _is_bad(number, rules)
        for name, scan in texts.items()
        if scan.numbers >= MANY * scan.present
    }
    worded: dict[str, IsWanted] = {
        name: lambda values: is_worded(clean_texts(values, rules))
        for name, scan in texts.items()
        if name not in mixed and scan.worded >= MANY * scan.present
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
