"""Fields that several requests have."""

import pytest
from pydantic import TypeAdapter, ValidationError

from services.billing.fields import PeriodId
from services.billing.periods import next_period, start_of

_period = TypeAdapter(PeriodId)


@pytest.mark.parametrize(
    "period", ["1970-01", "1999-12", "2026-10", "9899-12", "9989-01", "9998-12"]
)
def test_a_month_with_an_end_is_accepted(period: str) -> None:
    assert start_of(next_period(_period.validate_python(period))) > start_of(period)


@pytest.mark.parametrize(
    "period", ["1969-12", "9999-01", "9999-12", "2026-00", "2026-13", "2026-1", "2026-10\n", 202610]
)
def test_any_other_is_refused(period: object) -> None:
    with pytest.raises(ValidationError):
        _period.validate_python(period)
