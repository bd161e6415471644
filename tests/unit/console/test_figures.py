"""Months, days without gaps, forecasts and charts."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.console.design.charts import bar_chart, diverging_bars, sparkline_path
from services.console.usage.figures import (
    Month,
    daily,
    forecast,
    monthly,
    offered_months,
    read_month,
)

TODAY = date(2026, 11, 15)
NOVEMBER = Month(date(2026, 11, 1))


def test_a_month_ends_where_the_next_one_begins() -> None:
    december = Month(date(2026, 12, 1))

    assert (NOVEMBER.since, NOVEMBER.until) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert (december.until, december.before()) == ("2027-01-01T00:00:00Z", NOVEMBER)


@pytest.mark.parametrize("text", ["", "2026-12", "1999-01", "x", "2026-11-01"])
def test_any_other_month_is_the_current_one(text: str) -> None:
    assert read_month(text, today=TODAY) == NOVEMBER


def test_a_year_of_months_is_offered() -> None:
    months = offered_months(today=TODAY)

    assert [months[0].id, months[-1].id, len(months)] == ["2026-11", "2025-12", 12]
    assert read_month("2026-02", today=TODAY).days == 28


def test_days_without_calls_are_shown_up_to_the_last() -> None:
    buckets = [{"key": "2026-11-03T00:00:00Z", "requests": 2, "amount": "0.5"}]

    found = daily(buckets, first=NOVEMBER.first, last=TODAY)

    assert len(found) == 15
    assert found[2] == (date(2026, 11, 3), 2, Decimal("0.5"))
    assert found[0] == (date(2026, 11, 1), 0, Decimal(0))


def test_months_without_calls_are_shown_from_the_first_to_the_last() -> None:
    buckets = [{"key": "2026-10-01T00:00:00Z", "requests": 2, "amount": "0.5"}]

    found = monthly(buckets, first=date(2026, 9, 30), last=TODAY)

    assert [(each.month, count) for each, count, _ in found] == [(9, 0), (10, 2), (11, 0)]


def test_a_month_that_is_over_has_no_forecast() -> None:
    october = NOVEMBER.before()

    assert forecast(Decimal(9), month=october, now=datetime(2026, 11, 15, tzinfo=UTC)) is None


def test_the_forecast_goes_on_like_the_days_so_far() -> None:
    half = datetime(2026, 11, 16, tzinfo=UTC)
    first_hours = datetime(2026, 11, 1, 23, tzinfo=UTC)

    assert forecast(Decimal(3), month=NOVEMBER, now=half) == Decimal(6)
    assert forecast(Decimal(3), month=NOVEMBER, now=first_hours) is None


@given(st.lists(st.decimals(min_value=0, max_value=10**12, places=9), max_size=40))
def test_every_column_stays_within_its_chart(values: list[Decimal]) -> None:
    chart = bar_chart([(str(n), value, str(value)) for n, value in enumerate(values)])

    for bar, value in zip(chart.bars, values, strict=True):
        assert 0 <= bar.x <= bar.x + bar.width <= 100.001
        assert 0 <= bar.y <= 100
        assert bar.y + bar.height == pytest.approx(100)
        assert (bar.height > 0) == (value > 0)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=40))
def test_every_bar_starts_in_the_middle_and_stays_within_its_chart(values: list[float]) -> None:
    chart = diverging_bars([(str(n), value, str(value)) for n, value in enumerate(values)])

    for bar, value in zip(chart.bars, values, strict=True):
        assert -0.001 <= bar.x <= bar.x + bar.width <= 100.401
        assert bar.negative == (value < 0)


def test_a_sparkline_has_a_column_for_each_value_above_0() -> None:
    path = sparkline_path([Decimal(2), Decimal(0), Decimal(4), Decimal("0.0001")])

    assert path == "M3.125 100v-50h18.75V100zM53.12 100v-100h18.75V100zM78.12 100v-0.8h18.75V100z"
    assert sparkline_path([]) == sparkline_path([Decimal(0)]) == ""
