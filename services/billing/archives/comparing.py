"""What is compared with the sums of archived events; needs no DuckDB."""

from collections.abc import Sequence
from typing import NamedTuple

REVERSED = "reversed"
"""The table of archived events that were taken back."""
SUMS = ("requests", "rows", "amount")

Stored = tuple[Sequence[str], Sequence[int]]
"""The values of a key, and what is stored under it."""


class Difference(NamedTuple):
    """What is stored under a key, less what the events add up to."""

    key: tuple[str, ...]
    more: tuple[int, ...]
