"""Parse dates as people write them: `2026-01-31`, `31.01.2026`, `1/31/2026 2:05 PM`, `31 Jan 2026`.

All functions work on Arrow arrays of trimmed text, a block at a time; null stays null. A date
without an offset is in UTC.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainer.types import Floats, Indices, Mask

DateOrder = Literal["day-first", "month-first"]
"""What the first number of `01/02/2026` is."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAME = (
    "(?P<name>[Jj]an|[Ff]eb|[Mm]ar|[Aa]pr|[Mm]ay|[Jj]un|[Jj]ul|[Aa]ug|[Ss]ep|[Oo]ct|[Nn]ov|[Dd]ec"
    "|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)[A-Za-z]{0,6}"
)
_ZONE = r"(?: ?(?P<zone>Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?))?"
_TIME = (
    r"(?:(?:[Tt]|,? +)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d(?:[.,]\d{1,9})?))?"
    rf"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?{_ZONE})?$"
)
_ISO = rf"^(?P<year>\d{{4}})-(?P<month>\d\d)-(?P<day>\d\d){_TIME}"
_YEAR_FIRST = (
    *(
        rf"^(?P<year>\d{{4}}){sign}(?P<month>\d{{1,2}}){sign}(?P<day>\d{{1,2}}){_TIME}"
        for sign in ("-", "/", r"\.")
    ),
    r"^(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)(?:[Tt](?P<hour>\d\d))?$",
)
_NAMED = (
    rf"^(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[ .-]+{_NAME}\.?,?[ -]+(?P<year>\d{{4}}){_TIME}",
    rf"^{_NAME}\.? +(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? +(?P<year>\d{{4}}){_TIME}",
)
# Dots are used where the day comes first; other signs say nothing.
_DOTTED = rf"^(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.(?P<year>\d{{4}}|\d\d){_TIME}"
_LOCAL = tuple(
    rf"^(?P<first>\d{{1,2}}){sign}(?P<next>\d{{1,2}}){sign}(?P<year>\d{{4}}|\d\d){_TIME}"
    for sign in ("/", "-")
)
_MAYBE_DATE = (
    r"^(?:\d{1,4}[-/.]\d{1,2}[-/.]\d|\d{1,2}(?:st|nd|rd|th)?[ .-]+[A-Za-z]{3}"
    r"|[A-Za-z]{3,9}\.? +\d{1,2}(?:st|nd|rd|th)?,? +\d{4})"
)

_LAST_YEAR_OF_2000 = 68  # of two digits, as POSIX reads them
_PER_SECOND = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""From what size on a number counts nanoseconds, microseconds or milliseconds, not seconds."""


@dataclass
class DateScan:
    """Counts of a column's cells that are dates.

    Args:
        dates: all of them.
        day_first, month_first: dates such as `31/01/2026` and `01/31/2026`.
        unclear: dates such as `01/02/2026`.
        dotted: dates such as `31.01.2026`.
    """

    dates: int = 0
    day_first: int = 0
    month_first: int = 0
    unclear: int = 0
    dotted: int = 0

    def scan(self, texts: pa.Array, counts: Indices) -> None:
        """Count distinct texts with their frequencies."""
        is_maybe = _matches(texts, _MAYBE_DATE)
        if not is_maybe.any():
            return
        texts, counts = texts.filter(pa.array(is_maybe)), counts[is_maybe]
        as_day = ~np.isnan(parse_dates(texts, "day-first"))
        as_month = ~np.isnan(parse_dates(texts, "month-first"))
        is_local = _is_local(texts)
        is_same = _same_numbers(texts)
        self.dates += int(counts[as_day | as_month].sum())
        self.day_first += int(counts[is_local & as_day & ~as_month].sum())
        self.month_first += int(counts[is_local & as_month & ~as_day].sum())
        self.unclear += int(counts[is_local & as_day & as_month & ~is_same].sum())
        self.dotted += int(counts[as_day & _matches(texts, _DOTTED)].sum())

    def add(self, other: "DateScan") -> None:
        """Add the counts of another part of the column."""
        self.dates += other.dates
        self.day_first += other.day_first
        self.month_first += other.month_first
        self.unclear += other.unclear
        self.dotted += other.dotted

    @property
    def order(self) -> DateOrder | None:
        """Return the order that the dates show; None if there is no sign of one, or of both."""
        if bool(self.day_first) == bool(self.month_first):
            return None
        return "day-first" if self.day_first else "month-first"


def parse_dates(texts: pa.Array, order: DateOrder, *, numbers: bool = False) -> Floats:
    """Return seconds since 1970; NaN where a cell is null or is not a date.

    Args:
        order: of dates such as `01/02/2026`.
        numbers: whether numbers count as seconds since 1970, or milliseconds if they are large.
    """
    seconds = np.full(len(texts), np.nan)
    patterns = [_ISO, *_YEAR_FIRST, _DOTTED, *_LOCAL, *_NAMED]
    open_cells = _to_mask(texts.is_valid())
    for pattern in patterns:
        if not open_cells.any():
            return seconds
        is_match = open_cells & _matches(texts, pattern)
        if is_match.any():
            seconds[is_match] = _seconds(texts.filter(pa.array(is_match)), pattern, order)
            open_cells &= ~is_match
    if numbers and open_cells.any():
        rest = texts.filter(pa.array(open_cells))
        is_number = _matches(rest, r"^-?\d{1,19}(?:\.\d*)?$")
        given = pc.if_else(pa.array(is_number), rest, pa.scalar(None, pa.large_string()))
        seconds[open_cells] = from_numbers(_floats(given))
    return seconds


def from_numbers(numbers: Floats) -> Floats:
    """Return seconds since 1970, of seconds, milliseconds, microseconds or nanoseconds."""
    sizes = np.abs(numbers)
    factors = np.select(
        [sizes >= least for least, _ in _PER_SECOND], [n for _, n in _PER_SECOND], 1
    )
    return np.asarray(numbers / factors)


def is_unclear(texts: pa.Array) -> Mask:
    """Return where a cell is a date such as `01/02/2026`, which is two."""
    as_day, as_month = parse_dates(texts, "day-first"), parse_dates(texts, "month-first")
    return np.asarray(~np.isnan(as_day) & ~np.isnan(as_month) & (as_day != as_month))


def _seconds(texts: pa.Array, pattern: str, order: DateOrder) -> Floats:
    """Return the times of texts that match a pattern; NaN for days that do not exist."""
    found = pc.extract_regex(texts, pattern)
    groups = {field.name: found.field(i) for i, field in enumerate(found.type)}

    def number(name: str, default: float = 0.0) -> Floats:
        given = groups.get(name)
        if given is None:
            return np.full(len(texts), default)
        values = _floats(pc.replace_substring(given, ",", "."))
        return np.where(np.isnan(values), default, values)

    year = number("year")
    is_short = _to_mask(pc.equal(pc.utf8_length(groups["year"]), 2))
    year = year + np.where(is_short, np.where(year <= _LAST_YEAR_OF_2000, 2000, 1900), 0)
    if "first" in groups:
        first, other = number("first"), number("next")
        day, month = (first, other) if order == "day-first" else (other, first)
    else:
        day, month = number("day"), number("month")
    if "name" in groups:
        names = pc.index_in(pc.utf8_lower(groups["name"]), pa.array(_MONTHS, groups["name"].type))
        month = np.asarray(names.to_numpy(zero_copy_only=False), dtype=np.float64) + 1
    hour, minute, second = number("hour"), number("minute"), number("second")
    is_valid = (hour < 24) & (minute < 60) & (second < 60)
    if "half" in groups:
        half = pc.utf8_lower(groups["half"])
        is_half = _to_mask(pc.not_equal(half, ""))
        is_valid &= ~is_half | ((hour >= 1) & (hour <= 12))
        is_after = _to_mask(pc.equal(half, "p"))
        hour = np.where(is_half, hour % 12 + 12 * is_after, hour)
    days = _days(year, month, day)
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - _offsets(groups.get("zone"))
    return np.where(is_valid, seconds, np.nan)


def _days(year: Floats, month: Floats, day: Floats) -> Floats:
    """Return days since 1970; NaN for days that do not exist."""
    is_valid = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    months = np.where(is_valid, (year - 1970) * 12 + month - 1, 0).astype(np.int64)
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    after = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    is_valid &= day <= after - first
    return np.where(is_valid, first + day - 1, np.nan)


def _offsets(zones: pa.Array | None) -> Floats | float:
    """Return the seconds by which some zones are ahead of UTC."""
    if zones is None or not _matches(zones, r"\d").any():
        return 0.0
    digits = pc.replace_substring_regex(zones, r"[^\d]", "")
    hours = _floats(pc.utf8_slice_codeunits(digits, 0, 2))
    minutes = _floats(pc.utf8_slice_codeunits(digits, 2, 4))
    ahead = np.nan_to_num(hours) * 3600 + np.nan_to_num(minutes) * 60
    return np.where(_matches(zones, "^-"), -ahead, ahead)


def _is_local(texts: pa.Array) -> Mask:
    slashed, dashed = (_matches(texts, pattern) for pattern in _LOCAL)
    return np.asarray(slashed | dashed)


def _same_numbers(texts: pa.Array) -> Mask:
    """Return where both readings are the same day: `01/01/2026`."""
    return np.asarray(parse_dates(texts, "day-first") == parse_dates(texts, "month-first"))


def _floats(texts: pa.Array) -> Floats:
    filled = pc.if_else(pc.equal(texts, ""), pa.scalar(None, texts.type), texts)
    numbers: npt.NDArray[np.float64] = pc.cast(filled, pa.float64()).to_numpy(zero_copy_only=False)
    return np.asarray(numbers, dtype=np.float64)


def _matches(texts: pa.Array, pattern: str) -> Mask:
    return _to_mask(pc.match_substring_regex(texts, pattern))


def _to_mask(found: pa.Array) -> Mask:
    return np.asarray(found.fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)
