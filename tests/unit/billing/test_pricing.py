"""What a request costs: properties of every plan."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.plans import LOCAL_PLAN, plan, price
from services.billing.plans.pricing import Tier, charge, charge_together, unit_prices
from services.billing.plans.schemas import PlanCreate
from services.billing.plans.service import plan_ids
from services.common.contracts import format_amount

amounts = st.integers(0, 10**12)


@st.composite
def tier_lists(draw: st.DrawFn) -> list[Tier]:
    """Draw tiers with rising bounds, the last without one."""
    bounds = sorted(draw(st.sets(st.integers(1, 60), max_size=4)))
    return [
        Tier.model_validate(
            {
                "up_to_requests": bound,
                "per_request": format_amount(draw(amounts)),
                "per_row": format_amount(draw(amounts)),
            }
        )
        for bound in [*bounds, None]
    ]


@given(tier_lists(), st.integers(0, 80), st.integers(1, 100), st.integers(0, 2**31 - 1))
def test_each_request_pays_the_tier_of_its_number(
    tiers: list[Tier], included: int, number: int, rows: int
) -> None:
    cost = charge(tiers=tiers, included_requests=included, number=number, rows=rows)

    bounds = [tier.up_to_requests or 10**9 for tier in tiers]
    mine = tiers[sum(bound < number for bound in bounds)]
    expected = 0 if number <= included else mine.per_request + rows * mine.per_row
    assert cost == expected


@given(tier_lists(), st.integers(0, 80), st.integers(0, 100))
def test_a_month_costs_the_sum_of_its_tiers(
    tiers: list[Tier], included: int, requests: int
) -> None:
    month = sum(
        charge(tiers=tiers, included_requests=included, number=number, rows=0)
        for number in range(1, requests + 1)
    )

    by_tier, below = 0, included
    for tier in tiers:
        upper = min(requests, tier.up_to_requests or requests)
        by_tier += max(0, upper - below) * tier.per_request
        below = max(below, upper)
    assert month == by_tier


@given(tier_lists(), st.integers(0, 20), st.lists(st.integers(0, 2**31 - 1), max_size=40))
def test_requests_together_cost_what_each_of_them_costs(
    tiers: list[Tier], included: int, rows: list[int]
) -> None:
    together = charge_together(
        tiers=tiers, included_requests=included, requests=len(rows), rows=sum(rows)
    )

    each, per_row = 0, set[int]()
    for number, count in enumerate(rows, 1):
        each += charge(tiers=tiers, included_requests=included, number=number, rows=count)
        per_row.add(unit_prices(tiers=tiers, included_requests=included, number=number)[1])
    assert together == (each if len(per_row) <= 1 else None)


@given(tier_lists(), st.integers(1, 100))
def test_included_requests_pay_neither_request_nor_rows(tiers: list[Tier], number: int) -> None:
    assert unit_prices(tiers=tiers, included_requests=number, number=number) == (0, 0)


def test_a_cost_beyond_64_bits_is_exact() -> None:
    tier = Tier.model_validate({"up_to_requests": None, "per_request": "0", "per_row": "9000000"})

    assert charge(tiers=[tier], included_requests=0, number=1, rows=2**31) == 9 * 10**15 * 2**31


class TestPlans:
    @pytest.mark.parametrize(
        "wrong",
        [
            plan(price((10, "1", "0"))),
            plan(price((None, "1", "0"), (10, "1", "0"))),
            plan(price((None, "1", "0"), (None, "1", "0"))),
            plan(price((10, "1", "0"), (10, "1", "0"), (None, "1", "0"))),
            plan(price((10, "1", "0"), (9, "1", "0"), (None, "1", "0"))),
            plan(price((0, "1", "0"), (None, "1", "0"))),
            plan(price((None, "-1", "0"))),
            plan(price((None, "0.0000000001", "0"))),
            plan(price((None, "1e3", "0"))),
            plan(price((None, "1", "0"), included=-1)),
            plan(price((None, "1", "0")), price((None, "2", "0"))),
            plan(price((None, "1", "0"), model="é")),
            plan(price((None, "1", "0"), included=1), billing="prepaid"),
            plan(price((1, "1", "0"), (None, "2", "0")), billing="prepaid"),
            plan(prices=[]),
            plan(prices=[{"model": None, "included_requests": 0, "tiers": []}]),
            plan(currency="usd"),
            plan(billing="never"),
            plan(name=""),
            plan(rate_limit={"per_second": 0, "burst": 1}),
            plan(surprise=1),
        ],
    )
    def test_an_inconsistent_plan_is_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            PlanCreate.model_validate(wrong)

    def test_the_same_plan_has_the_same_ids_however_it_is_written(self) -> None:
        one = PlanCreate.model_validate(plan(price((None, "0.5", "0"))))
        other = PlanCreate.model_validate(
            dict(reversed(plan(price((None, "0.500", "0.0"))).items()))
        )

        assert plan_ids(one) == plan_ids(other)

    def test_another_plan_has_other_ids(self) -> None:
        one, other = (
            plan_ids(PlanCreate.model_validate(LOCAL_PLAN | {"name": name})) for name in "ab"
        )

        assert one[0] != other[0]
        assert not set(one[1]) & set(other[1])
