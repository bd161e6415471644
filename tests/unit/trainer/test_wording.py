"""Counts and lists in messages are plain English."""

import pytest

from trainer.wording import counted, listed


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows")]
)
def test_one_thing_is_singular(number: int, text: str) -> None:
    assert counted(number, "row") == text


@pytest.mark.parametrize(
    ("items", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c", "d"], "a, b and 2 more")],
)
def test_a_long_list_is_cut_and_counted(items: list[str], text: str) -> None:
    assert listed(items, most=2) == text


def test_a_list_of_clauses_has_semicolons() -> None:
    assert listed(["a", "b", "c"], most=2, separator="; ") == "a; b; and 1 more"
