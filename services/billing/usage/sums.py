"""Sums of usage events by month, by hour, and by hour and a dimension."""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

HOUR = timedelta(hours=1)

_TAG = "tag:"


class Sums(NamedTuple):
    """The requests, rows and amount (10⁻⁹ of the unit) of some events."""

    requests: int = 0
    rows: int = 0
    amount: int = 0

    def plus(self, requests: int, rows: int, amount: int) -> "Sums":
        """Return the sums including more events."""
        return Sums(self.requests + requests, self.rows + rows, self.amount + amount)

    def minus(self, other: "Sums") -> "Sums":
        """Return the sums without those of some of the events."""
        return self.plus(-other.requests, -other.rows, -other.amount)


NO_USAGE = Sums()


class MonthKey(NamedTuple):
    """What the sums of a month are kept by."""

    account: str
    period: str
    price_id: str


class HourKey(NamedTuple):
    """What the sums of an hour are kept by."""

    account: str
    hour: datetime
    model: str
    price_id: str


class VersionKey(NamedTuple):
    """What the sums of an hour by version are kept by."""

    account: str
    hour: datetime
    model: str
    price_id: str
    version: str


class BreakdownGroup(NamedTuple):
    """An account's hour by a dimension; it has sums for each value."""

    account: str
    dimension: str
    hour: datetime


class BreakdownKey(NamedTuple):
    """What the sums of an hour by a dimension are kept by."""

    account: str
    dimension: str
    hour: datetime
    value: str

    @property
    def group(self) -> BreakdownGroup:
        return BreakdownGroup(*self[:-1])


def dimension_of_tag(name: str) -> str:
    """Return the dimension of a tag, as in `group_by`."""
    return f"{_TAG}{name}"


def is_tag(dimension: str) -> bool:
    """Return whether a dimension is a tag."""
    return dimension.startswith(_TAG)


def choose_values(
    keys: Iterable[BreakdownKey],
    *,
    counts: Mapping[BreakdownGroup, int],
    known: Set[BreakdownKey],
    limit: int,
) -> set[BreakdownKey]:
    """Return the keys whose sums are kept: those that have some, and new ones up to a limit.

    Args:
        counts: how many values each group has.
        known: those of the keys that have sums.
        limit: how many values a group may have.
    """
    chosen: set[BreakdownKey] = set()
    filled = Counter(counts)
    for key in sorted(keys):
        if key not in known:
            if filled[key.group] >= limit:
                continue
            filled[key.group] += 1
        chosen.add(key)
    return chosen


def tag_of(dimension: str) -> str:
    """Return the name of the tag that is a dimension."""
    return dimension.removeprefix(_TAG)


def hour_of(moment: datetime) -> datetime:
    """Return the start of the UTC hour of an aware datetime."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return _hour(utc.year, utc.month, utc.day, utc.hour)


@lru_cache(maxsize=1024)
def _hour(year: int, month: int, day: int, hour: int) -> datetime:
    """Return an hour; the same object each time, because a datetime's first hash is slow."""
    return datetime(year, month, day, hour, tzinfo=UTC)


def day_of(moment: datetime) -> datetime:
    """Return the start of the UTC day of an aware datetime."""
    return hour_of(moment).replace(hour=0)


def month_of(moment: datetime) -> datetime:
    """Return the start of the UTC month of an aware datetime."""
    return day_of(moment).replace(day=1)
