"""The range of days in an address of the page of usage."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.console.usage.ranges import MAX_DAYS, NAMES, Range, named_range, read_range

TODAY = date(2026, 11, 15)
THIS_MONTH = Range(date(2026, 11, 1), TODAY, "month")
TEXTS = st.dates().map(date.isoformat) | st.text(max_size=12) | st.just("")


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("month", date(2026, 11, 1), TODAY),
        ("last-month", date(2026, 10, 1), date(2026, 10, 31)),
        ("7", date(2026, 11, 9), TODAY),
        ("365", date(2025, 11, 16), TODAY),
        ("9999", date(2026, 11, 1), TODAY),
    ],
)
def test_a_name_stands_for_a_range(name: str, first: date, last: date) -> None:
    found = named_range(name, today=TODAY)

    assert (found.first, found.last) == (first, last)


def test_a_range_ends_where_the_next_day_begins() -> None:
    days = Range(date(2026, 12, 30), date(2026, 12, 31))

    assert (days.since, days.until) == ("2026-12-30T00:00:00Z", "2027-01-01T00:00:00Z")
    assert days.month.id == "2026-12"
    assert not days.includes(date(2027, 1, 1))


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("", "", THIS_MONTH),
        ("2026-11-15", "2026-11-15", Range(TODAY, TODAY)),
        ("2026-10-20", "", Range(date(2026, 10, 20), TODAY)),
        ("", "2026-10-30", Range(date(2026, 10, 1), date(2026, 10, 30))),
        ("2026-11-01", "2099-01-01", Range(date(2026, 11, 1), TODAY)),
    ],
)
def test_dates_of_a_form_are_taken_as_they_are(first: str, last: str, expected: Range) -> None:
    assert read_range(first, last, name="7" if first else "month", today=TODAY) == (expected, {})


@pytest.mark.parametrize(
    ("first", "last", "wrong"),
    [
        ("2026-11-02", "2026-11-01", ["from"]),
        ("2026-11-16", "", ["from"]),
        ("2024-11-01", "2026-11-01", ["from"]),
        ("x", "2026-02-30", ["to", "from"]),
        ("0001-01-01", "", ["from"]),
    ],
)
def test_what_is_wrong_is_named_and_this_month_is_shown(
    first: str, last: str, wrong: list[str]
) -> None:
    days, errors = read_range(first, last, name="7", today=TODAY)

    assert list(errors) == wrong
    assert days == THIS_MONTH


@given(first=TEXTS, last=TEXTS, name=st.sampled_from([*NAMES, "", "x"]), today=st.dates())
def test_any_address_leads_to_a_range_that_can_be_shown(
    first: str, last: str, name: str, today: date
) -> None:
    today = max(today, date(2026, 1, 1))

    days, _ = read_range(first, last, name=name, today=today)

    assert days.first <= days.last <= today
    assert (days.last - days.first).days < MAX_DAYS
