"""The form of a plan, and the places of billing's errors in it."""

import pytest

from services.billing.plans.schemas import PlanCreate
from services.console.admin.plan_forms import field_of, read_plan

FORM = {
    "name": "Pay as you go",
    "currency": "usd",
    "billing": "postpaid",
    "per_request": "0.0005",
    "per_row": "0.0001",
}
SECOND = {"model_3": "wine", "per_request_3": "1", "per_row_3": "2"}
TIERS = {"up_to_requests": "100", "then_per_request": "0.0004", "then_per_row": "0"}


def test_a_simple_form_is_a_plan_that_billing_accepts() -> None:
    plan, errors = read_plan(FORM)

    stored = PlanCreate.model_validate(plan)
    assert errors == {}
    assert (stored.name, stored.currency, stored.public) == ("Pay as you go", "USD", False)
    assert [price.model for price in stored.prices] == [None]
    assert stored.rate_limit is None


def test_a_full_form_is_a_plan_that_billing_accepts() -> None:
    limit = {"per_second": "50", "burst": "100", "public": "yes", "included_requests": "1000"}
    fee = {"monthly_fee": "9.90", "description": " For teams. "}

    plan, errors = read_plan(FORM | SECOND | TIERS | limit | fee)

    stored = PlanCreate.model_validate(plan)
    assert errors == {}
    assert stored.public
    assert (stored.monthly_fee, stored.description) == (9_900_000_000, "For teams.")
    assert stored.rate_limit is not None
    assert stored.rate_limit.per_second == 50
    assert [price.model for price in stored.prices] == [None, "wine"]
    assert [tier.up_to_requests for tier in stored.prices[0].tiers] == [100, None]
    assert stored.prices[0].included_requests == 1000


def test_a_prepaid_plan_may_have_trial_credit() -> None:
    trial = {"billing": "prepaid", "trial_amount": "5", "trial_days": "14"}

    plan, errors = read_plan(FORM | trial)

    stored = PlanCreate.model_validate(plan)
    assert errors == {}
    assert stored.trial_credit is not None
    assert (stored.trial_credit.amount, stored.trial_credit.days) == (5 * 10**9, 14)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": " "}, "name"),
        ({"currency": ""}, "currency"),
        ({"billing": "later"}, "billing"),
        ({"billing": "prepaid", "monthly_fee": "5"}, "monthly_fee"),
        ({"per_request": ""}, "per_request"),
        ({"included_requests": "1.5"}, "included_requests"),
        ({"included_requests": "²"}, "included_requests"),
        ({"per_second": "5"}, "burst"),
        ({"burst": "5"}, "per_second"),
        ({"then_per_row": "1"}, "up_to_requests"),
        ({"up_to_requests": "5", "then_per_request": "1"}, "then_per_row"),
        ({"per_row_2": "1", "per_request_2": "1"}, "model_2"),
        ({"billing": "prepaid", "trial_days": "14"}, "trial_amount"),
        ({"billing": "prepaid", "trial_amount": "5"}, "trial_days"),
        ({"billing": "prepaid", "trial_amount": "5", "trial_days": "2.5"}, "trial_days"),
        ({"trial_amount": "5", "trial_days": "14"}, "trial_amount"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(changes: dict[str, str], field: str) -> None:
    _, errors = read_plan(FORM | changes)

    assert list(errors) == [field]


@pytest.mark.parametrize(
    ("location", "field"),
    [
        ("name", "name"),
        ("rate_limit.burst", "burst"),
        ("trial_credit.amount", "trial_amount"),
        ("trial_credit.days", "trial_days"),
        ("trial_credit", "trial_amount"),
        ("prices.0.tiers.0.per_row", "per_row"),
        ("prices.0.tiers.1.per_row", "then_per_row"),
        ("prices.1.model", "model_3"),
        ("prices.1.tiers.0.per_request", "per_request_3"),
        ("prices.0", None),
        ("prices", None),
        ("", None),
    ],
)
def test_a_place_in_a_plan_leads_to_its_field(location: str, field: str | None) -> None:
    assert field_of(location, FORM | SECOND | TIERS) == field
