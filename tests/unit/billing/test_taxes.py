"""Tax rules: their rates, and whom they apply to."""

from fractions import Fraction

import pytest
from pydantic import ValidationError

from services.billing.invoices.parties import AppliedTax, Party, TaxRule, find_tax
from services.billing.invoices.rendering import percent
from services.common.contracts import parse_amount

BUYER = Party(name="Ada", country="FR", vat_id="FR40303265045")
REVERSED = TaxRule(country="FR", rate="20", reverse_charge=True)


@pytest.mark.parametrize(
    ("given", "rate", "shown"),
    [
        ("0.19", "0.19", "19 %"),
        (19, "19", "19 %"),
        ("1E+1", "10", "10 %"),
        ("1E-3", "0.001", "0.1 %"),
        (0.077, "0.077", "7.7 %"),
        ("0.123456789", "0.123456789", "12.3456789 %"),
        ("-0", "0", "0 %"),
        (100, "100", "100 %"),
        ("19.50", "19.50", "19.5 %"),
    ],
)
def test_a_rate_is_stored_as_plain_digits(given: object, rate: str, shown: str) -> None:
    rule = TaxRule.model_validate({"country": "DE", "rate": given})

    assert (rule.rate, percent(rule.rate)) == (rate, shown)
    assert parse_amount(rule.rate) >= 0


@pytest.mark.parametrize("given", ["1E-10", "0.0000000001", "NaN", "-1", "101", "", "1,9"])
def test_any_other_rate_is_refused(given: str) -> None:
    with pytest.raises(ValidationError):
        TaxRule.model_validate({"country": "DE", "rate": given})


def test_an_invoice_of_before_shows_its_rate() -> None:
    assert percent("1E+1") == "10 %"
    assert AppliedTax(rate="1E+1", reason="").fraction == Fraction(1, 10)


@pytest.mark.parametrize(
    ("seller", "rate"), [(None, "20"), ("FR", "20"), ("DE", "0")], ids=["unknown", "same", "abroad"]
)
def test_a_charge_is_reversed_only_between_two_known_countries(
    seller: str | None, rate: str
) -> None:
    applied = find_tax([REVERSED], seller=Party(name="S", country=seller), buyer=BUYER)

    assert applied.rate == rate
