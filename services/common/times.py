"""Date-times on the wire: RFC 3339, and nothing else."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
"""A year before the calendar of Python and of the databases ends, so that a moment can be shown
in any zone and added to."""

EXPECTED = "Must be an RFC 3339 date-time, such as 2026-01-31T12:00:00Z."
OUT_OF_RANGE = "Must be a date-time from 1970-01-01T00:00:00Z to 9998-12-31T23:59:59Z."

_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:)(\d\d)(\.\d+)?(?:[Zz]|([+-](?:[01]\d|2[0-3]):[0-5]\d))",
    re.ASCII,
)
_LEAP_SECOND = "60"


def parse_instant(text: str) -> datetime:
    """Return the moment that an RFC 3339 `date-time` names, in UTC.

    `T` and `Z` may be lower case (§5.6). Fractions beyond microseconds are cut off. A leap second
    counts as the start of the next minute.

    Raises:
        ValueError: not such a text, or outside `EARLIEST` to `LATEST`; the message says which.
    """
    parts = _DATE_TIME.fullmatch(text)
    if parts is None:
        raise ValueError(EXPECTED)
    day, minute, second, fraction, offset = parts.groups()
    leap = second == _LEAP_SECOND
    if leap:
        second, fraction = "59", None
    try:
        local = datetime.fromisoformat(
            f"{day}T{minute}{second}{(fraction or '')[:7]}{offset or '+00:00'}"
        )
    except ValueError:  # such as the 30th of February
        raise ValueError(EXPECTED) from None
    try:
        instant = local.astimezone(UTC) + timedelta(seconds=leap)
    except OverflowError:
        raise ValueError(OUT_OF_RANGE) from None
    if leap and (instant.hour, instant.minute, instant.second) != (0, 0, 0):
        raise ValueError(EXPECTED)  # leap seconds end a UTC day
    if not EARLIEST <= instant <= LATEST:
        raise ValueError(OUT_OF_RANGE)
    return instant


def _validate(value: Any) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value  # one of our own; from outside come texts
    try:
        return parse_instant(value if isinstance(value, str) else "")
    except ValueError as error:
        raise PydanticCustomError("date_time", str(error)) from None


Instant = Annotated[datetime, BeforeValidator(_validate)]
"""A moment: an RFC 3339 date-time on the wire (pydantic alone also takes numbers and dates), an
aware datetime in memory."""
