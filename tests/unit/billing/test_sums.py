"""Which values of a tag have sums of their own."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.billing.usage.sums import BreakdownKey, choose_values

HOUR = datetime(2026, 10, 1, tzinfo=UTC)
keys = st.builds(
    BreakdownKey,
    account=st.sampled_from("ab"),
    dimension=st.sampled_from(["tag:x", "tag:y"]),
    hour=st.just(HOUR),
    value=st.sampled_from("stuvw"),
)


@given(st.sets(keys), st.sets(keys), st.integers(0, 4))
def test_known_values_stay_and_new_ones_fill_up(
    stored: set[BreakdownKey], offered: set[BreakdownKey], limit: int
) -> None:
    counts = {key.group: sum(each.group == key.group for each in stored) for key in stored}

    chosen = choose_values(offered, counts=counts, known=stored & offered, limit=limit)

    assert stored & offered <= chosen <= offered
    for group in {key.group for key in offered}:
        before = counts.get(group, 0)
        after = before + sum(key.group == group for key in chosen - stored)
        wanted = before + sum(key.group == group for key in offered - stored)
        assert after == max(before, min(wanted, limit))
