"""Ranges of numbers, compared with sets."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.billing.sources.ranges import Range, count, gaps, has_arrived, merge

numbers = st.sets(st.integers(1, 40))
runs = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 10)).map(lambda pair: (pair[0], sum(pair)))
)


def members(ranges: list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(runs)
def test_merging_keeps_the_numbers_and_leaves_no_adjacent_ranges(ranges: list[Range]) -> None:
    merged = merge(ranges)

    assert members(merged) == members(ranges)
    assert count(merged) == len(members(ranges))
    assert all(high + 1 < low for (_, high), (low, _) in pairwise(merged))


@given(runs, st.integers(0, 60))
def test_a_number_has_arrived_if_it_is_in_a_range(ranges: list[Range], number: int) -> None:
    assert has_arrived(number, ranges) == (number in members(ranges))


@given(runs, st.integers(0, 60))
def test_gaps_are_what_is_missing_up_to_the_last(ranges: list[Range], last: int) -> None:
    missing = gaps(ranges, last=last)

    assert members(missing) == set(range(1, last + 1)) - members(ranges)
    assert merge(missing) == missing


def test_gaps_of_very_long_journals_are_found_at_once() -> None:
    assert gaps([(1, 10**15)], last=2**62) == [(10**15 + 1, 2**62)]
