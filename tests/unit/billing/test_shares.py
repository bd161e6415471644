"""The shares of an invoice's lines: what is given back in parts adds up to the whole line."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from services.billing.currencies import rounded
from services.billing.invoices.shares import LineShare, line_shares

UNIT = 10**7
RATE = Fraction(19, 100)
amounts = st.integers(0, 100 * UNIT)


def shares_of(*exact: int) -> list[LineShare]:
    lines = [(amount, rounded(amount, unit=UNIT)) for amount in exact]
    return line_shares(lines, rate=RATE, unit=UNIT)


@given(st.lists(amounts, max_size=8))
def test_the_taxes_of_all_lines_are_the_tax_of_the_invoice(exact: list[int]) -> None:
    shares = shares_of(*exact)

    subtotal = sum(share.rounded for share in shares)
    assert sum(share.tax for share in shares) == rounded(RATE * subtotal, unit=UNIT)


@given(st.lists(amounts, min_size=1, max_size=8))
def test_events_taken_back_one_by_one_are_worth_the_whole_line(events: list[int]) -> None:
    (share,) = shares_of(sum(events))

    worths = [sum(share.worth(sum(events[:count]))) for count in range(len(events) + 1)]

    assert worths == sorted(worths)
    assert (worths[0], worths[-1]) == (0, share.gross)


def test_a_part_is_worth_what_the_line_would_charge_less() -> None:
    (share,) = shares_of(10 * UNIT + 6 * UNIT // 10)

    assert share.rounded == 11 * UNIT
    assert share.worth(2 * UNIT // 10) == (UNIT, rounded(RATE * UNIT, unit=UNIT))
    assert share.worth(4 * UNIT // 10) == (UNIT, rounded(RATE * UNIT, unit=UNIT))
