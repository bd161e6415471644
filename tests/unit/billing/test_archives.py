"""Which months are due for archiving, and the settings of archives."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.billing.archives.service import last_due
from services.billing.periods import next_period, period_of
from services.billing.settings import BillingSettings

moments = st.datetimes(timezones=st.just(UTC)).filter(lambda moment: moment.year > 200)


@given(moments, st.integers(1, 1200))
def test_a_month_is_due_once_it_has_been_kept_for_so_many_months(
    now: datetime, months: int
) -> None:
    period = last_due(keep_months=months, now=now)

    for _ in range(months + 1):
        period = next_period(period)
    assert period == period_of(now)


@pytest.mark.parametrize("months", ["0", "-1", "1201", "x"])
def test_a_retention_that_makes_no_sense_is_refused(months: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="retention_months"):
        BillingSettings(home=tmp_path, retention_months=months)


def test_retention_needs_an_archive(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="needs BILLING_ARCHIVE"):
        BillingSettings(home=tmp_path, archive="none", retention_months=13)
    assert BillingSettings(home=tmp_path).archive == str(tmp_path / "archive")
