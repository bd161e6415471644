"""Fingerprints: do two tables have the same sums by key? Answered without grouping either.

Every key has a weight, a pseudo-random number below 2³². A table's fingerprint is the sum of each
row's amount times the weight of its key. So tables with the same sums have the same fingerprint,
and only where fingerprints differ must the sums be compared one by one, which says where.

A changed amount goes unnoticed only if its weight is 0, and an amount under another key only if
both have the same weight: one case in 2³². The salt is new in every run, so that two changes that
cancel out in one run do not in the next. CRC32 is applied twice because it is linear: alone, rows
that exchange parts of their keys would often cancel out.

Weights are for MySQL and MariaDB, whose sums are decimals of any size; SQLite has no CRC32.
"""

from secrets import randbits
from typing import Any, NamedTuple
from zlib import crc32

from sqlalchemy import ColumnElement, Numeric, cast, func


class Weights(NamedTuple):
    """The weights of keys in one run."""

    salt: int

    def of(self, *key: Any) -> ColumnElement[Any]:
        """Return the weight of a key, given as columns and literals."""
        first = func.crc32(func.concat_ws(" ", *key))
        return cast(func.crc32(first.op("^")(self.salt)), Numeric(10, 0))

    def factor(self, name: str) -> ColumnElement[Any]:
        """Return what one of several columns is multiplied by, to have them in one fingerprint."""
        return cast(crc32(f"{name} {self.salt}".encode()), Numeric(10, 0))

    def value(self, *key: object) -> int:
        """Return the weight of a key, given as values."""
        first = crc32(" ".join(map(str, key)).encode())
        return crc32(str(first ^ self.salt).encode())


def new_weights() -> Weights:
    """Return weights that no run had before."""
    return Weights(randbits(32))
