"""CSV for spreadsheets: text stays text, numbers stay numbers."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.csv_text import csv_columns, csv_lines, harmless
from services.common.contracts import MAX_SUM, format_amount

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@pytest.mark.parametrize("begin", FORMULAS)
def test_text_that_begins_like_a_formula_gets_an_apostrophe(begin: str) -> None:
    assert harmless(f"{begin}cmd|' /C calc'!A0") == f"'{begin}cmd|' /C calc'!A0"


@given(st.integers(-MAX_SUM, MAX_SUM))
def test_an_amount_is_unchanged(amount: int) -> None:
    assert harmless(format_amount(amount)) == format_amount(amount)


@given(st.text())
def test_no_text_is_a_formula(text: str) -> None:
    cell = harmless(text)

    assert cell in (text, f"'{text}")
    is_number = text.removeprefix("-").removeprefix("+").replace(".", "", 1).isdigit()
    assert is_number or not str(cell).startswith(FORMULAS)


@given(st.lists(st.tuples(st.text(), st.integers(), st.none()), min_size=1))
def test_every_cell_can_be_read_back(rows: list[tuple[str, int, None]]) -> None:
    lines = csv_lines(rows)

    read = list(csv.reader(io.StringIO(lines, newline="")))
    assert read == [[harmless(text), str(number), ""] for text, number, _ in rows]


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["wine", "=1", "-1"])), min_size=1))
def test_columns_become_the_lines_of_their_rows(rows: list[tuple[str, str]]) -> None:
    assert csv_columns(list(zip(*rows, strict=True))) == csv_lines(rows)
