"""Ranges of received sequences: pure functions."""

from collections.abc import Iterable

Range = tuple[int, int]
"""The first and last number of a range, both inclusive."""


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Return the same numbers in as few ranges as possible, ascending."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def count(ranges: Iterable[Range]) -> int:
    """Return how many numbers are in ranges that do not overlap."""
    return sum(last - first + 1 for first, last in ranges)


def has_arrived(number: int, ranges: Iterable[Range]) -> bool:
    """Return whether a number is in one of the ranges."""
    return any(first <= number <= last for first, last in ranges)


def gaps(ranges: Iterable[Range], *, last: int) -> list[Range]:
    """Return the missing ranges from 1 to `last`."""
    missing: list[Range] = []
    expected = 1
    for first, end in [*merge(ranges), (last + 1, last + 1)]:
        if first > expected:
            missing.append((expected, min(first - 1, last)))
        expected = end + 1
    return [(first, end) for first, end in missing if first <= end]
