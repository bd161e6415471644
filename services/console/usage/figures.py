"""What a month's usage comes to: days without gaps, and a forecast."""

from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

_MONTHS_OFFERED = 12


@dataclass(frozen=True, slots=True)
class Month:
    """A UTC month."""

    first: date

    @property
    def id(self) -> str:
        """The month as the APIs write it, such as `2026-10`."""
        return f"{self.first:%Y-%m}"

    @property
    def days(self) -> int:
        """How many days it has."""
        return monthrange(self.first.year, self.first.month)[1]

    @property
    def since(self) -> str:
        """Its beginning in RFC 3339."""
        return f"{self.first.isoformat()}T00:00:00Z"

    @property
    def until(self) -> str:
        """Its end in RFC 3339, exclusive."""
        return f"{(self.first + timedelta(days=self.days)).isoformat()}T00:00:00Z"

    def before(self) -> "Month":
        """Return the month before."""
        return Month((self.first - timedelta(days=1)).replace(day=1))


def read_month(text: str, *, today: date) -> Month:
    """Return the month that an address names; the current one if it names none that is offered."""
    return next((each for each in offered_months(today=today) if each.id == text), month_of(today))


def month_of(day: date) -> Month:
    """Return the month of a day."""
    return Month(day.replace(day=1))


def offered_months(*, today: date) -> list[Month]:
    """Return the months to choose from, newest first."""
    months = [month_of(today)]
    while len(months) < _MONTHS_OFFERED:
        months.append(months[-1].before())
    return months


def daily(
    buckets: Sequence[Mapping[str, Any]], *, first: date, last: date
) -> list[tuple[date, int, Decimal]]:
    """Return the requests and the amount of each day from the first to the last, without gaps."""
    by_day = {str(each["key"])[:10]: each for each in buckets}
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    found = [(day, by_day.get(day.isoformat())) for day in days]
    return [
        (day, each["requests"] if each else 0, Decimal(each["amount"]) if each else Decimal(0))
        for day, each in found
    ]


def monthly(
    buckets: Sequence[Mapping[str, Any]], *, first: date, last: date
) -> list[tuple[date, int, Decimal]]:
    """Return the first day, the requests and the amount of each month, as `daily` does of days."""
    by_month = {str(each["key"])[:7]: each for each in buckets}
    months = [month_of(last)]
    while months[-1].first > first:
        months.append(months[-1].before())
    found = [(month.first, by_month.get(month.id)) for month in reversed(months)]
    return [
        (day, each["requests"] if each else 0, Decimal(each["amount"]) if each else Decimal(0))
        for day, each in found
    ]


def forecast(amount: Decimal, *, month: Month, now: datetime) -> Decimal | None:
    """Return what the month will come to at the current rate; None for a month that is over.

    In the first hours of a month, nothing can be said yet.
    """
    begins = datetime.combine(month.first, datetime.min.time(), UTC)
    passed = (now - begins) / timedelta(days=month.days)
    hours = (now - begins) / timedelta(hours=1)
    return amount / Decimal(passed) if hours >= 24 and passed < 1 else None
