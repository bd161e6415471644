"""Monthly fees: every day of a month counts for one plan, and all days cost exactly the fee."""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.periods import start_of
from services.billing.plans.fees import Change, fee_periods, fees_of, pro_rata
from services.billing.plans.repository import FeePlan

SMALL = FeePlan("small", "Small", "USD", 30 * 10**9)
LARGE = FeePlan("large", "Large", "USD", 62 * 10**9 + 1)
FREE = FeePlan("free", "Free", "USD", 0)
EUROS = FeePlan("euros", "Euros", "EUR", 10**9)
PLANS = [SMALL, LARGE, FREE, EUROS, None]

periods = st.builds(
    lambda year, month: f"{year:04d}-{month:02d}", st.integers(1999, 2101), st.integers(1, 12)
)


def at(day: str, hour: int = 12) -> datetime:
    return datetime.fromisoformat(day).replace(hour=hour, tzinfo=UTC)


@st.composite
def histories(draw: st.DrawFn, period: str | None = None) -> tuple[str, list[Change]]:
    """Return a month, and an account's changes of plan around it, in order."""
    month = period or draw(periods)
    offsets = draw(st.lists(st.integers(-20 * 86_400, 50 * 86_400), max_size=12))
    moments = sorted(start_of(month) + timedelta(seconds=each) for each in offsets)
    return month, [(moment, draw(st.sampled_from(PLANS))) for moment in moments]


def days_of(period: str) -> list[date]:
    year, month = map(int, period.split("-"))
    return [date(year, month, day) for day in range(1, monthrange(year, month)[1] + 1)]


def plan_at_the_end_of(day: date, changes: list[Change]) -> FeePlan | None:
    begun = [plan for moment, plan in changes if moment.date() <= day]
    return begun[-1] if begun else None


class TestFeePeriods:
    @given(histories())
    def test_they_are_in_order_never_overlap_and_stay_in_the_month(
        self, history: tuple[str, list[Change]]
    ) -> None:
        period, changes = history

        found = fee_periods(changes, period=period)

        bounds = [bound for each in found for bound in (each.first, each.end)]
        assert bounds == sorted(bounds)
        assert all(each.days > 0 for each in found)
        assert sum(each.days for each in found) <= len(days_of(period))
        assert {day.month for day in bounds[:-1]} <= {days_of(period)[0].month}

    @given(histories())
    def test_a_day_counts_for_the_plan_in_force_at_its_end(
        self, history: tuple[str, list[Change]]
    ) -> None:
        period, changes = history

        found = fee_periods(changes, period=period)

        by_day = {
            each.first + timedelta(days=number): each.plan
            for each in found
            for number in range(each.days)
        }
        expected = {day: plan_at_the_end_of(day, changes) for day in days_of(period)}
        assert by_day == {day: plan for day, plan in expected.items() if plan is not None}

    def test_days_are_those_of_utc(self) -> None:
        tokyo = timezone(timedelta(hours=9))
        first = datetime(2026, 11, 11, 8, tzinfo=tokyo)

        (found,) = fee_periods([(first, SMALL)], period="2026-11")

        assert (found.first, found.end) == (date(2026, 11, 10), date(2026, 12, 1))


class TestFees:
    @given(histories())
    def test_what_is_charged_is_the_days_of_each_plan(
        self, history: tuple[str, list[Change]]
    ) -> None:
        period, changes = history

        fees = fees_of(changes, period=period, currency="USD")

        days = days_of(period)
        counted = [plan_at_the_end_of(day, changes) for day in days]
        assert {fee.plan for fee in fees} == {*counted} & {SMALL, LARGE}
        for fee in fees:
            assert (fee.days, fee.month_days) == (counted.count(fee.plan), len(days))
            assert abs(fee.amount * len(days) - fee.plan.monthly_fee * fee.days) * 2 <= len(days)

    @given(periods, st.integers(0, 10**21), st.lists(st.integers(0, 31 * 86_400 - 1), max_size=9))
    def test_however_often_a_plan_is_chosen_again_a_month_costs_exactly_the_fee(
        self, period: str, monthly_fee: int, offsets: list[int]
    ) -> None:
        plan = FeePlan("any", "Any", "USD", monthly_fee)
        start = start_of(period)
        changes = [(start + timedelta(seconds=each), plan) for each in sorted([0, *offsets])]

        fees = fees_of(changes, period=period, currency="USD")

        assert sum(fee.amount for fee in fees) == monthly_fee

    @pytest.mark.parametrize("period", ["2026-02", "2028-02", "2026-04", "2026-12", "2100-02"])
    def test_a_whole_month_of_any_length_costs_exactly_the_fee(self, period: str) -> None:
        (fee,) = fees_of([(at("2020-01-01"), LARGE)], period=period, currency="USD")

        assert (fee.days, fee.amount) == (fee.month_days, LARGE.monthly_fee)
        assert fee.days == len(days_of(period))

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ([("2026-11-01", SMALL)], {"small": 30}),
            ([("2026-11-30", SMALL)], {"small": 1}),
            ([("2026-12-01", SMALL)], {}),
            ([("2026-10-31", SMALL), ("2026-11-01", None)], {}),
            ([("2026-11-11", SMALL), ("2026-11-21", None)], {"small": 10}),
            ([("2026-11-11", SMALL), ("2026-11-11", None)], {}),
            ([("2026-11-01", SMALL), ("2026-11-11", LARGE)], {"small": 10, "large": 20}),
            ([("2026-11-05", SMALL), ("2026-11-05", LARGE)], {"large": 26}),
            (
                [("2026-10-01", SMALL), ("2026-11-11", LARGE), ("2026-11-16", SMALL)],
                {"small": 25, "large": 5},
            ),
        ],
    )
    def test_the_first_day_is_included_and_the_day_of_a_change_is_not(
        self, changes: list[tuple[str, FeePlan | None]], expected: dict[str, int]
    ) -> None:
        moments = [(at(day, hour=8 + n), plan) for n, (day, plan) in enumerate(changes)]

        fees = fees_of(moments, period="2026-11", currency="USD")

        assert {fee.plan.id: fee.days for fee in fees} == expected

    def test_a_plan_in_another_currency_is_not_charged(self) -> None:
        assert fees_of([(at("2026-11-01"), EUROS)], period="2026-11", currency="USD") == []


@given(st.integers(0, 10**21), st.integers(28, 31), st.data())
def test_parts_are_within_half_a_unit_of_the_exact_amount(
    monthly_fee: int, month_days: int, data: st.DataObject
) -> None:
    days = data.draw(st.integers(0, month_days))

    amount = pro_rata(monthly_fee, days=days, month_days=month_days)

    assert abs(2 * (amount * month_days - monthly_fee * days)) <= month_days
    rest = pro_rata(monthly_fee, days=month_days - days, month_days=month_days)
    assert abs(amount + rest - monthly_fee) <= 1
