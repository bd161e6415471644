"""Which numbers of a journal have arrived, as runs of them: pure functions."""

from collections.abc import Iterable

Range = tuple[int, int]
"""First and last of a run of whole numbers, both in it."""


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same numbers in as few runs as there can be, ascending."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def count(ranges: Iterable[Range]) -> int:
    """How many numbers lie in runs that do not overlap."""
    return sum(last - first + 1 for first, last in ranges)


def has_arrived(number: int, ranges: Iterable[Range]) -> bool:
    """Whether a number lies in one of the runs."""
    return any(first <= number <= last for first, last in ranges)


def gaps(ranges: Iterable[Range], *, last: int) -> list[Range]:
    """The runs of numbers from 1 to `last` that are missing."""
    missing: list[Range] = []
    expected = 1
    for first, end in [*merge(ranges), (last + 1, last + 1)]:
        if first > expected:
            missing.append((expected, min(first - 1, last)))
        expected = end + 1
    return [(first, end) for first, end in missing if first <= end]
