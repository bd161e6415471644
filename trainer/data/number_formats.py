"""Parse numbers as people write them: `1,234.50`, `1.234,50`, `$5`, `12 %`, `(12)`.

All functions work on Arrow arrays of trimmed text, a block at a time; null stays null.
"""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.data.dates import DateScan
from trainer.types import Floats, Indices, Mask

Decimal = Literal[".", ","]
Thousands = Literal["", ",", ".", " ", "'"]

_CODES = (
    "USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RON|BGN|TRY|RUB|UAH|BRL|MXN"
    "|ARS|CLP|COP|ZAR|EGP|NGN|KES|ILS|SAR|AED|LBP|KRW|TWD|HKD|SGD|THB|VND|IDR|MYR|PHP|PKR|BDT"
)
_UNIT = rf"(?:[A-Z]{{0,3}}\p{{Sc}}|{_CODES}|kr|zł|Kč|Ft|%|‰)"
_BLANK = r"[ \x{00a0}\x{2007}\x{2009}\x{202f}]"
_MINUS = r"[-\x{2212}]"
_SIGN = r"[-+\x{2212}]"
_GROUPERS = {",": ",", ".": r"\.", " ": _BLANK, "'": r"['\x{2019}]"}
_NOT_OF_UNIT = r"\d[eE][-+]?\d|[\d.,'\x{2019}()+\x{2212}-]|" + _BLANK
_PADDED = r"^[-+]?0\d+$"
_PLACEHOLDER = (
    r"(?i)^(?:[^\p{L}\p{N}]*|n\.?/?\\?a\.?|na|nan|nil|none|null|missing|unknown|undefined|tbd|tba"
    r"|not available|not applicable|no data|blank|empty|#?(?:ref|div/0|value|num|name|null|n/?a)!?"
    r"|k\.?a\.?)$"
)


@dataclass(frozen=True)
class NumberStyle:
    """How the numbers of a column are written.

    Args:
        thousands: the thousands separator; None for any except the decimal sign.
        unit: the sign before or after every number, such as "$" or "%".
    """

    decimal: Decimal = "."
    thousands: Thousands | None = None
    unit: str = ""


PLAIN = NumberStyle()


@dataclass
class CellScan:
    """Counts of a text column's cells, by what they look like.

    Args:
        present: cells that are not null.
        truths: "true" or "false", in any case.
        answers: "yes" or "no", in any case.
        numbers: numbers in any style.
        padded: whole numbers with leading zeros, such as "007".
        worded: a number and a word, such as "5 kg".
        placeholders: words for "no value", such as "-", "?", "unknown".
        point_only, comma_only: numbers whose decimal sign is certain.
        point_unclear, comma_unclear: numbers such as `1.234` and `1,234`, by their sign.
        grouped: numbers that must have thousands separators.
        bracketed: numbers in brackets.
        units: numbers per unit; "" for none.
        dates: cells that are dates.
    """

    present: int = 0
    truths: int = 0
    answers: int = 0
    numbers: int = 0
    padded: int = 0
    worded: int = 0
    placeholders: int = 0
    point_only: int = 0
    comma_only: int = 0
    point_unclear: int = 0
    comma_unclear: int = 0
    grouped: int = 0
    bracketed: int = 0
    units: Counter[str] = field(default_factory=Counter)
    dates: DateScan = field(default_factory=DateScan)

    def scan(self, texts: pa.Array) -> None:
        """Count some more cells."""
        present = texts.drop_null()
        self.present += len(present)
        if not len(present):
            return
        if _cast(present) is not None:
            self.numbers += len(present)
            self.units[""] += len(present)
            self.padded += int(_matches(present, _PADDED).sum())
            self._scan_points(present)
            return
        counted = pc.value_counts(present)
        self._scan_values(counted.field("values"), counted.field("counts").to_numpy())

    def _scan_points(self, plain: pa.Array) -> None:
        """Count plain numbers; exact only until one decimal point is certain."""
        dotted = plain.filter(pc.match_substring(plain, "."))
        unclear = 0
        if not self.point_only:
            unclear = int(_matches(dotted, _pattern(",", None)).sum())
        self.point_only += len(dotted) - unclear
        self.point_unclear += unclear

    def _scan_values(self, texts: pa.Array, counts: Indices) -> None:
        """Count distinct texts with their frequencies."""
        with_point = _matches(texts, _pattern(".", None))
        with_comma = _matches(texts, _pattern(",", None))
        is_unclear = with_point & with_comma
        is_finite = with_point | with_comma
        is_number = is_finite | _is_infinite(texts)
        has_comma = _matches(texts, ",")
        is_truth = is_true_or_false(texts)

        def count(mask: Mask) -> int:
            return int(counts[mask].sum())

        self.truths += count(is_truth)
        self.answers += count(_matches(texts, "(?i)^(?:yes|no)$"))
        self.padded += count(_matches(texts, _PADDED))
        self.dates.scan(texts, counts)
        self.numbers += count(is_number)
        self.point_only += count(with_point & ~with_comma)
        self.comma_only += count(with_comma & ~with_point)
        self.comma_unclear += count(is_unclear & has_comma)
        self.point_unclear += count(is_unclear & ~has_comma & _matches(texts, r"\."))
        has_no_groups = _matches(texts, _pattern(".", "")) | _matches(texts, _pattern(",", ""))
        self.grouped += count(is_finite & ~has_no_groups)
        self.bracketed += count(is_finite & _matches(texts, r"\("))
        self.placeholders += count(~is_number & ~is_truth & _matches(texts, _PLACEHOLDER))
        self.worded += count(~is_number & is_worded(texts))
        units = _units(texts).filter(pa.array(is_finite)).to_pylist()
        for unit, times in zip(units, counts[is_finite].tolist(), strict=True):
            self.units[unit] += times

    def add(self, other: "CellScan") -> None:
        """Add the counts of another part of the column."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.units += other.units
        self.dates.add(other.dates)

    def add_kinds(self, other: "CellScan") -> None:
        """Add the counts of a part that does not show how numbers are written."""
        for name in ("present", "truths", "answers", "numbers", "worded", "placeholders"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.dates.add(other.dates)

    @property
    def is_plain(self) -> bool:
        """Return whether every cell is a number as programs write it."""
        return (
            self.numbers == self.present
            and self.units.keys() <= {""}
            and not (self.comma_only or self.comma_unclear or self.grouped or self.bracketed)
        )

    @property
    def is_padded(self) -> bool:
        """Return whether it has whole numbers alone, and some have leading zeros, as codes have."""
        signs = self.point_only + self.comma_only + self.point_unclear + self.comma_unclear
        return self.padded > 0 and not signs and not self.grouped and self.units.keys() <= {""}

    @property
    def certain_decimal(self) -> Decimal | None:
        """Return the decimal sign of most numbers, if that of any is certain."""
        if not self.point_only and not self.comma_only:
            return None
        return "," if self.comma_only > self.point_only else "."

    @property
    def unit(self) -> str:
        """Return the unit of most numbers."""
        return self.units.most_common(1)[0][0] if self.units else ""


_COUNTS = [each.name for each in fields(CellScan) if each.name not in ("units", "dates")]


def is_worded(texts: pa.Array) -> Mask:
    """Return where a cell is a number and a word: "5 kg", "16GB", "km 7"."""
    number, word = rf"{_SIGN}?\d[\d.,]*", r"[^\d\s.,:/+-][^\d\s]{0,9}\d?"
    return _matches(texts, rf"^(?:{number}{_BLANK}?{word}|{word}{_BLANK}{number})$")


def is_true_or_false(texts: pa.Array) -> Mask:
    """Return where a cell is "true" or "false", in any case."""
    return _matches(texts, "(?i)^(?:true|false)$")


def parse_truths(texts: pa.Array) -> Floats:
    """Return 1 for "true" and "yes" and 0 for "false" and "no", in any case; NaN elsewhere."""
    is_true = _matches(texts, "(?i)^(?:true|yes)$")
    is_false = _matches(texts, "(?i)^(?:false|no)$")
    return np.where(is_true | is_false, is_true.astype(np.float64), np.nan)


def parse_numbers(texts: pa.Array, style: NumberStyle) -> Floats:
    """Return the numbers; NaN where a cell is null or is not a number in this style."""
    is_plain = style.decimal == "." and not style.unit
    if is_plain and (numbers := _cast(texts)) is not None:
        return numbers
    fits = _matches(texts, _pattern(style.decimal, style.thousands))
    fits &= _to_mask(pc.equal(_units(texts), style.unit))
    written = pc.if_else(pa.array(fits), texts, pa.scalar(None, pa.large_string()))
    is_negative = _matches(written, rf"^[^\d.,]*(?:{_MINUS}|\()|{_MINUS}$")
    cores = pc.replace_substring_regex(written, r"^[^\d.,]*|[^\d.,]*$", "")
    groupers = r"['\x{2019}]|" + _BLANK + ("|," if style.decimal == "." else r"|\.")
    cores = pc.replace_substring_regex(cores, groupers, "")
    if style.decimal == ",":
        cores = pc.replace_substring(cores, ",", ".")
    numbers = _to_numpy(pc.cast(cores, pa.float64()))
    numbers = np.where(is_negative, -numbers, numbers)
    return np.where(_is_infinite(texts), np.inf, numbers)


def _pattern(decimal: Decimal, thousands: Thousands | None) -> str:
    """Return the regular expression of a whole cell that is a number."""
    sign = r"\." if decimal == "." else ","
    core = [rf"\d+(?:{sign}\d*)?", rf"{sign}\d+"]
    groupers = [g for g in _GROUPERS if g != decimal] if thousands is None else [thousands]
    for grouper in filter(None, groupers):
        group = _GROUPERS[grouper]
        core.append(rf"[1-9]\d{{0,2}}(?:{group}\d{{3}})+(?:{sign}\d*)?")
    if "," in groupers:  # Indian grouping: 12,34,567
        core.append(rf"[1-9]\d?(?:,\d\d)+,\d{{3}}(?:{sign}\d*)?")
    number = rf"(?:{'|'.join(core)})(?:[eE][-+]?\d+)?"
    after = rf"(?:{_BLANK}*{_UNIT})?"
    ways = (
        rf"(?:{_SIGN}{_BLANK}*{_UNIT}{_BLANK}*|{_UNIT}{_BLANK}*{_SIGN}?{_BLANK}*|{_SIGN}{_BLANK}*)?"
        rf"{number}{after}",
        rf"(?:{_UNIT}{_BLANK}*)?{number}{after}{_BLANK}*{_MINUS}",
        rf"(?:{_UNIT}{_BLANK}*)?\({_BLANK}*(?:{_UNIT}{_BLANK}*)?{number}{after}{_BLANK}*\){after}",
    )
    return rf"^(?:{'|'.join(ways)})$"


def _cast(texts: pa.Array) -> Floats | None:
    """Return the numbers if Arrow can parse every cell, the usual case; else None."""
    try:
        numbers = _to_numpy(pc.cast(texts, pa.float64()))
    except pa.ArrowInvalid:
        return None
    return None if np.isnan(numbers).sum() > texts.null_count else numbers


def _is_infinite(texts: pa.Array) -> Mask:
    return _matches(texts, r"(?i)^[-+]?inf(?:inity)?$")


def _units(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(texts, _NOT_OF_UNIT, "")


def _matches(texts: pa.Array, pattern: str) -> Mask:
    return _to_mask(pc.match_substring_regex(texts, pattern))


def _to_mask(found: pa.Array) -> Mask:
    return np.asarray(found.fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _to_numpy(numbers: pa.Array) -> Floats:
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)
