"""Sums of usage events by month and by hour."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

HOUR = timedelta(hours=1)


class Sums(NamedTuple):
    """The requests, rows and amount (10⁻⁹ of the unit) of some events."""

    requests: int = 0
    rows: int = 0
    amount: int = 0

    def plus(self, requests: int, rows: int, amount: int) -> "Sums":
        """Return the sums including more events."""
        return Sums(self.requests + requests, self.rows + rows, self.amount + amount)


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


def hour_of(moment: datetime) -> datetime:
    """Return the start of the UTC hour of an aware datetime."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day_of(moment: datetime) -> datetime:
    """Return the start of the UTC day of an aware datetime."""
    return hour_of(moment).replace(hour=0)


def month_of(moment: datetime) -> datetime:
    """Return the start of the UTC month of an aware datetime."""
    return day_of(moment).replace(day=1)
