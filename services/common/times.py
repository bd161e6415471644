"""Parse date-times on the wire, strictly in RFC 3339 format."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
"""A year before the last date that Python and the databases support, which leaves room for time
zones and additions."""

EXPECTED = "Must be an RFC 3339 date-time, such as 2026-01-31T12:00:00Z."
OUT_OF_RANGE = "Must be a date-time from 1970-01-01T00:00:00Z to 9998-12-31T23:59:59Z."

_HOUR = r"(?:[01]\d|2[0-3])"  # Python 3.14 would read 24:00 as the next midnight
_DATE_TIME = re.compile(
    rf"(\d{{4}}-\d\d-\d\d)[Tt]({_HOUR}:\d\d:)(\d\d)(\.\d+)?(?:[Zz]|([+-]{_HOUR}:[0-5]\d))",
    re.ASCII,
)
_LEAP_SECOND = "60"
_USUAL = re.compile(
    rf"\d{{4}}-\d\d-\d\dT{_HOUR}:[0-5]\d:[0-5]\d(?:\.\d{{1,6}})?(?:Z|\+00:00)",
    re.ASCII,
)
"""What our own services send, which Python parses by itself."""


def parse_instant(text: str) -> datetime:
    """Return an RFC 3339 `date-time` as a datetime in UTC.

    `T` and `Z` may be lower case (§5.6). Fractions are truncated to microseconds. A leap second
    counts as the start of the next minute.

    Raises:
        ValueError: malformed, or not between `EARLIEST` and `LATEST`; the message says which.
    """
    if _USUAL.fullmatch(text):
        return _in_range(_read(text))
    parts = _DATE_TIME.fullmatch(text)
    if parts is None:
        raise ValueError(EXPECTED)
    day, minute, second, fraction, offset = parts.groups()
    leap = second == _LEAP_SECOND
    if leap:
        second, fraction = "59", None
    local = _read(f"{day}T{minute}{second}{(fraction or '')[:7]}{offset or '+00:00'}")
    try:
        instant = local.astimezone(UTC) + timedelta(seconds=leap)
    except OverflowError:
        raise ValueError(OUT_OF_RANGE) from None
    if leap and (instant.hour, instant.minute, instant.second) != (0, 0, 0):
        raise ValueError(EXPECTED)  # leap seconds only occur at the end of a UTC day
    return _in_range(instant)


def _read(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # such as the 30th of February
        raise ValueError(EXPECTED) from None


def _in_range(instant: datetime) -> datetime:
    if not EARLIEST <= instant <= LATEST:
        raise ValueError(OUT_OF_RANGE)
    return instant


def _validate(value: Any) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value  # set by our own code; JSON has only strings
    try:
        return parse_instant(value if isinstance(value, str) else "")
    except ValueError as error:
        raise PydanticCustomError("date_time", str(error)) from None


Instant = Annotated[datetime, BeforeValidator(_validate)]
"""A point in time: an RFC 3339 date-time on the wire, an aware datetime in memory.

Pydantic's own parser would also accept numbers and dates.
"""
