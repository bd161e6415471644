"""Infer the schema: each column's kind, and how its numbers are written, from all of its cells."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from registry.value_rules import ValueRules
from trainer.data.cells import clean_texts
from trainer.data.config import CsvSettings, DatasetConfig
from trainer.data.csv_part import CsvPart
from trainer.data.dates import DateOrder, DateScan, from_numbers, parse_dates
from trainer.data.decimal_signs import (
    DecimalEvidence,
    SettledSign,
    evidence_of,
    settle_signs,
)
from trainer.data.number_formats import (
    PLAIN,
    CellScan,
    Decimal,
    NumberStyle,
    parse_numbers,
    parse_truths,
)
from trainer.data.part import Part
from trainer.errors import DataError
from trainer.types import Floats, Kind

# A column is numeric if at most this share of its cells is other text. Placeholders such as "n/a"
# do not count.
MAX_BAD_SHARE = 0.1
_CONVERTED: dict[str, tuple[Kind, ...]] = {
    "datetime": ("number",),
    "text": ("datetime",),
    "sentence": ("datetime",),
}
"""From which other Parquet types a declared kind is read."""
_OTHER_SIGN: dict[str, Decimal] = {",": ".", ".": ","}


@dataclass
class ColumnScan:
    """What the text cells of a column look like.

    Args:
        total: of all parts.
        is_sure: whether the numbers of each part are alike.
        evidence: of the decimal sign, by part.
    """

    total: CellScan = field(default_factory=CellScan)
    is_sure: bool = True
    evidence: dict[str, DecimalEvidence] = field(default_factory=dict)


@dataclass(frozen=True)
class ColumnSchema:
    """How a column is read.

    Args:
        kind: None if the column is empty.
        looks_like: the kind that its cells have, if the previous version's was kept instead.
        order: which number of its dates is the day, where that is not evident.
        style: how its numbers are written, where they are text.
        other_styles: the styles of parts that are written differently.
        is_sure: whether every cell is known to match `kind` and style.
        unclear_in: the parts in which its decimal sign is unclear.
        has_unclear_dates: whether its dates may have the day or the month first.
        is_assumed: whether its points might also be thousands separators.
        is_written: whether its numbers are text with a decimal sign.
        has_groups: whether it has numbers such as `1,234.50`.
        has_brackets: whether it has numbers such as `(12)`.
        scan: what its text cells look like, if there are any.
    """

    kind: Kind | None
    looks_like: Kind | None = None
    order: DateOrder = "day-first"
    style: NumberStyle = PLAIN
    other_styles: Mapping[str, NumberStyle] = field(default_factory=dict)
    is_sure: bool = True
    unclear_in: tuple[str, ...] = ()
    has_unclear_dates: bool = False
    is_assumed: bool = False
    is_written: bool = False
    has_groups: bool = False
    has_brackets: bool = False
    scan: CellScan | None = None

    def style_in(self, part: Part) -> NumberStyle:
        """Return how the column's numbers are written in a part."""
        return PLAIN if part.is_feedback else self.other_styles.get(part.name, self.style)

    def parse(self, texts: pa.Array, part: Part) -> Floats:
        """Return the numbers of clean text; NaN elsewhere.

        They are 1 and 0 for true and false, and seconds since 1970 for times.
        """
        if self.kind == "boolean":
            return parse_truths(texts)
        if self.kind == "datetime":
            return parse_dates(texts, self.order, numbers=True)
        return parse_numbers(texts, self.style_in(part))


def infer_schema(
    parts: list[Part],
    names: list[str],
    config: DatasetConfig,
    *,
    known: Mapping[str, Kind] | None = None,
    plain: Collection[str] = (),
) -> dict[str, ColumnSchema]:
    """Decide the kind of each column from `dataset.json`, Parquet types and text cells.

    A text column is `boolean` if all its cells are true or false, or yes or no; `number` if they
    are numbers; `datetime` if they are dates; else `text`. Parquet types are kept, except for text
    that `dataset.json` declares as another kind.

    Args:
        known: the kinds in the previous version, which decide where two kinds fit.
        plain: columns that are not features: neither dates nor words are looked for in them.

    Raises:
        DataError: a column does not have the declared kind, or has different kinds in two parts.
    """
    known = {name: kind for name, kind in (known or {}).items() if name not in plain}
    known |= dict.fromkeys(plain, "text")
    typed = _typed_kinds(parts, names, config.columns)
    for name, kind in typed.items():
        if kind == "datetime" and known.get(name) == "text":
            typed[name] = "text"  # as Tollgate read it before
    wishes = {name: config.columns.get(name) or typed.get(name) for name in names}
    scans = _scan(parts, names, wishes, config.value_rules)
    return {name: ColumnSchema(wishes[name]) for name in names} | _choose_styles(
        parts, scans, wishes, config.csv, known, plain
    )


def read_floats(values: pa.Array, column: ColumnSchema, rules: ValueRules, part: Part) -> Floats:
    """Return a column of a block as float64: NaN for missing, 1 and 0 for true and false.

    Times are seconds since 1970.
    """
    if pa.types.is_large_string(values.type):
        numbers = column.parse(clean_texts(values, rules), part)
    else:
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.float64())
        numbers = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
        if column.kind == "datetime":
            numbers = from_numbers(numbers)
    if column.kind == "number" and rules.missing_numbers:
        with np.errstate(over="ignore"):  # `table` refuses numbers that are too large
            missing = np.array(rules.missing_numbers)
            is_missing = np.isin(numbers, missing)
            # Serving sees float32.
            is_missing |= np.isin(numbers.astype(np.float32), missing.astype(np.float32))
        return np.where(is_missing, np.nan, numbers)
    return numbers


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
            if wish is not None and kind not in (None, wish, "text", *_CONVERTED.get(wish, ())):
                raise DataError(f"{part.name}: column {name!r} is {kind}, not {wish}.")
            if kind is None or wish is not None:
                continue
            if kinds.setdefault(name, kind) != kind:
                raise DataError(
                    f"{part.name}: column {name!r} is {kind}, but {kinds[name]} in {first[name]}."
                )
            first.setdefault(name, part.name)
    return kinds


def _scan(
    parts: list[Part], names: list[str], wishes: dict[str, Kind | None], rules: ValueRules
) -> dict[str, ColumnScan]:
    """Scan all text columns that may hold something else."""
    scans: dict[str, ColumnScan] = {}
    for part in parts:
        here = {
            name: CellScan()
            for name in names
            if name in part.columns
            and wishes[name] not in ("text", "sentence")
            and (part.kinds is None or part.kinds[name] == "text")
        }
        for block in part.read(list(here)) if here else ():
            for name, scan in here.items():
                scan.scan(clean_texts(block[name], rules))
        for name, scan in here.items():
            column = scans.setdefault(name, ColumnScan())
            if part.is_feedback:
                column.total.add_kinds(scan)
                column.is_sure &= scan.is_plain
            else:
                column.total.add(scan)
                column.is_sure &= not (scan.point_only and scan.comma_only)
                column.evidence[part.name] = evidence_of(scan)
    return scans


def _choose_styles(
    parts: list[Part],
    scans: dict[str, ColumnScan],
    wishes: dict[str, Kind | None],
    settings: CsvSettings,
    known: Mapping[str, Kind],
    plain: Collection[str],
) -> dict[str, ColumnSchema]:
    """Choose the kinds of scanned columns, and the styles of their numbers and dates."""
    basic = {name: wishes[name] or _choose_kind(column.total) for name, column in scans.items()}
    likely = {name: wishes[name] or _look_closer(scans[name].total, basic[name]) for name in scans}
    # A version that was trained before a kind was known keeps its signature.
    kinds = {
        name: basic[name] if name in plain or known.get(name) == basic[name] else likely[name]
        for name in scans
    }
    numbers = {name: column for name, column in scans.items() if kinds[name] == "number"}
    dialects = {
        part.name: part.dialect.delimiter if isinstance(part, CsvPart) else "Parquet"
        for part in parts
    }
    evidence = {
        part: {
            name: column.evidence[part]
            for name, column in numbers.items()
            if part in column.evidence
        }
        for part in dialects
    }
    signs = settle_signs(evidence, dialects)
    dates = [column.total.dates for name, column in scans.items() if kinds[name] == "datetime"]
    order = settings.dates or _common_order(dates)
    schema = {}
    for name, column in scans.items():
        total, kind = column.total, kinds[name]
        looks_like = likely[name] if kind != likely[name] and name not in plain else None
        if kind == "number":
            found = {part: signs[part][name] for part in column.evidence}
            schema[name] = _numeric(column, found, settings, looks_like)
        elif kind == "datetime":
            schema[name] = _dated(total, settings, order)
        else:
            fitting = total.truths + total.answers
            is_sure = kind != "boolean" or fitting == total.present
            schema[name] = ColumnSchema(kind, looks_like, is_sure=is_sure, scan=total)
    return schema


def _common_order(dates: list[DateScan]) -> DateOrder | None:
    """Return the order of the dates in the columns that show one, if it is the same."""
    orders = {scan.order for scan in dates if scan.order is not None}
    return orders.pop() if len(orders) == 1 else None


def _dated(total: CellScan, settings: CsvSettings, common: DateOrder | None) -> ColumnSchema:
    """Return the schema of a column of dates."""
    dates = total.dates
    is_mixed = dates.day_first > 0 and dates.month_first > 0
    order = settings.dates or dates.order or (None if is_mixed else common)
    return ColumnSchema(
        "datetime",
        order=order or "day-first",
        is_sure=dates.dates == total.present and not is_mixed and settings.dates is None,
        has_unclear_dates=order is None and (is_mixed or dates.unclear > 0),
        scan=total,
    )


def _numeric(
    column: ColumnScan,
    signs: dict[str, SettledSign],
    settings: CsvSettings,
    looks_like: Kind | None,
) -> ColumnSchema:
    """Return the schema of a column of numbers, given its decimal sign in each part."""
    total = column.total
    configured = settings.decimal or _OTHER_SIGN.get(settings.thousands or "")
    decimals = {part: configured or settled.sign or "." for part, settled in signs.items()}
    commas = sum(decimal == "," for decimal in decimals.values())
    usual: Decimal = "," if commas > len(decimals) - commas else "."
    return ColumnSchema(
        "number",
        looks_like,
        style=NumberStyle(usual, settings.thousands, total.unit),
        other_styles={
            part: NumberStyle(decimal, settings.thousands, total.unit)
            for part, decimal in decimals.items()
            if decimal != usual
        },
        is_sure=(
            column.is_sure
            and total.numbers == total.present
            and len(total.units) <= 1
            and configured is None
            and settings.thousands is None
        ),
        unclear_in=tuple(
            part for part, settled in signs.items() if settled.sign is None and configured is None
        ),
        is_assumed=configured is None and any(settled.is_assumed for settled in signs.values()),
        is_written=any(each.sign or each.has_commas for each in column.evidence.values()),
        has_groups=total.grouped > 0
        or any(
            found.has_commas if decimals[part] == "." else found.has_points
            for part, found in column.evidence.items()
        ),
        has_brackets=total.bracketed > 0,
        scan=total,
    )


def _choose_kind(scan: CellScan) -> Kind | None:
    if not scan.present:
        return None
    counts: tuple[tuple[Kind, int], ...] = (("boolean", scan.truths), ("number", scan.numbers))
    for kind, count in counts:
        words = scan.present - count - scan.placeholders
        if count and words <= MAX_BAD_SHARE * (count + words):
            return kind
    return "text"


def _look_closer(scan: CellScan, basic: Kind | None) -> Kind | None:
    """Return the kind of a column if yes and no, leading zeros and dates count."""
    if basic == "number" and scan.is_padded:
        return "text"
    counts: tuple[tuple[Kind, int], ...] = (
        ("boolean", scan.truths + scan.answers),
        ("datetime", scan.dates.dates),
    )
    for kind, count in counts if basic == "text" else ():
        words = scan.present - count - scan.placeholders
        if count and words <= MAX_BAD_SHARE * (count + words):
            return kind
    return basic
