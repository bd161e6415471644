"""Ranges of days: those that are offered by name, and any other one from a form."""

from dataclasses import dataclass
from datetime import date, timedelta

from services.console.usage.figures import Month, month_of

MAX_DAYS = 366
_LONG = 92
"""From how many days on a range is shown by month."""
_EARLIEST = date(2000, 1, 1)
NAMES = {
    "month": "This month",
    "last-month": "Last month",
    "7": "7 days",
    "30": "30 days",
    "90": "90 days",
    "365": "365 days",
}
"""The ranges that are offered, by the name that an address has for them."""


@dataclass(frozen=True, slots=True)
class Range:
    """Days of UTC, from the first to the last, which both count."""

    first: date
    last: date
    name: str = ""
    """The name under which it is offered; empty for another one."""

    @property
    def since(self) -> str:
        """Its beginning in RFC 3339."""
        return f"{self.first.isoformat()}T00:00:00Z"

    @property
    def until(self) -> str:
        """Its end in RFC 3339, exclusive."""
        return f"{(self.last + timedelta(days=1)).isoformat()}T00:00:00Z"

    @property
    def month(self) -> Month:
        """The month of its last day."""
        return month_of(self.last)

    @property
    def is_long(self) -> bool:
        """Whether it has too many days to show each of them."""
        return (self.last - self.first).days >= _LONG

    def includes(self, day: date) -> bool:
        """Return whether a day is part of it."""
        return self.first <= day <= self.last


def named_range(name: str, *, today: date) -> Range:
    """Return a range that is offered; this month up to today for any other name."""
    if name == "last-month":
        before = month_of(today).before()
        return Range(before.first, before.first + timedelta(days=before.days - 1), name)
    if name in NAMES and name != "month":
        return Range(today - timedelta(days=int(name) - 1), today, name)
    return Range(month_of(today).first, today, "month")


def read_range(first: str, last: str, *, name: str, today: date) -> tuple[Range, dict[str, str]]:
    """Return the range that a form requests, and its errors by field.

    Args:
        first, last: dates such as `2026-11-27`; without any, the range with that name. An empty
            one is as far as a range reaches, or today.
    """
    if not first and not last:
        return named_range(name, today=today), {}
    errors = dict[str, str]()
    end = _read(last, "to", errors) if last else today
    begin = _read(first, "from", errors) if first else None
    if end is not None and end > today:
        end = today
    if begin is None and end is not None and not errors:
        begin = end - timedelta(days=29)
    if begin is not None and end is not None:
        if begin > end:
            errors["from"] = "Must not be after the last day, or in the future."
        elif (end - begin).days >= MAX_DAYS:
            errors["from"] = f"Choose at most {MAX_DAYS} days."
    if errors or begin is None or end is None:
        return named_range("month", today=today), errors
    return Range(begin, end), {}


def _read(text: str, field: str, errors: dict[str, str]) -> date | None:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found < _EARLIEST:
        errors[field] = "Enter a date, such as 2026-11-27."
        return None
    return found
