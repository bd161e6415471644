"""Amounts on the wire: exact in both directions, and within their limits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.common.contracts import (
    MAX_AMOUNT,
    MAX_SUM,
    Amount,
    RateLimit,
    Sum,
    format_amount,
    parse_amount,
)

_amount: TypeAdapter[int] = TypeAdapter(Amount)
_sum: TypeAdapter[int] = TypeAdapter(Sum)


@given(st.integers(-MAX_SUM, MAX_SUM))
def test_a_formatted_amount_parses_to_the_same_value(amount: int) -> None:
    assert parse_amount(format_amount(amount)) == amount
    assert _sum.validate_json(_sum.dump_json(amount)) == amount


@given(st.integers(1, 10**60))
def test_an_amount_beyond_the_limit_is_rejected(more: int) -> None:
    for limit, shape in ((MAX_AMOUNT, _amount), (MAX_SUM, _sum)):
        for sign in ("", "-"):
            with pytest.raises(ValidationError, match=f"at most {format_amount(limit)}"):
                shape.validate_python(sign + format_amount(limit + more))


@given(st.text(max_size=80) | st.integers() | st.floats() | st.booleans() | st.none())
def test_any_other_value_is_rejected_unless_it_is_a_plain_decimal(value: Any) -> None:
    try:
        amount = _sum.validate_python(value)
    except ValidationError:
        return

    assert isinstance(value, str)
    assert value.isascii()
    assert abs(amount) <= MAX_SUM


@given(st.floats() | st.sampled_from([5e-324, 1e-6, 9.999e-7, 1e6, 1e6 + 1]), st.floats())
def test_a_rate_limit_is_finite_and_every_share_of_it_is_positive(
    per_second: float, burst: float
) -> None:
    try:
        limit = RateLimit(per_second=per_second, burst=burst)
    except ValidationError:
        return

    assert 1e-6 <= limit.per_second <= 1e6
    assert 1 <= limit.burst <= 1e6
    assert limit.per_second / 1e12 > 0
