"""Words for counts and lists in messages."""

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[str], *, most: int, separator: str = ", ") -> str:
    """Return the first few items, and how many more there are."""
    more = len(items) - most
    last = " and " if separator == ", " else f"{separator}and "
    return separator.join(items[:most]) + (f"{last}{more:,} more" if more > 0 else "")
