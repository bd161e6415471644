"""Times as models see them: seconds since 1970 in UTC, and the parts that are features.

A time without an offset is in UTC, in training and in requests.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

PARTS = ("year", "month", "day_of_week", "hour", "days")
"""The features of a time; Monday is day 0, and `days` counts from the start of the training."""

SECONDS_PER_DAY = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def parse_time(text: str) -> float:
    """Return an ISO 8601 date or time as seconds since 1970.

    Raises:
        ValueError: it is not one.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) / _MICROSECOND / 1e6


def format_time(seconds: float) -> str:
    """Return seconds since 1970 as an ISO 8601 time in UTC, such as `2026-01-31T14:00:00Z`.

    Times outside the years 1 to 9999 become the first or the last of them.
    """
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        moment = _FIRST if seconds < 0 else _LAST
    return moment.isoformat().replace("+00:00", "Z")


def split_times(
    seconds: npt.NDArray[np.float64], *, start: float
) -> dict[str, npt.NDArray[np.float32]]:
    """Return each of `PARTS` of some times as float32, with NaN for a missing time.

    Args:
        seconds: since 1970; NaN for missing.
        start: the start of the training, in seconds since 1970.
    """
    is_missing = np.isnan(seconds)
    known = np.where(is_missing, 0.0, seconds)
    days = np.floor(known / SECONDS_PER_DAY)
    dates = days.astype(np.int64).astype("datetime64[D]")
    parts = (
        dates.astype("datetime64[Y]").astype(np.int64) + 1970,
        dates.astype("datetime64[M]").astype(np.int64) % 12 + 1,
        (days + 3) % 7,  # 1970 began on a Thursday
        (known - days * SECONDS_PER_DAY) // 3600,
        (known - start) / SECONDS_PER_DAY,
    )
    return {
        name: np.where(is_missing, np.nan, part).astype(np.float32)
        for name, part in zip(PARTS, parts, strict=True)
    }
