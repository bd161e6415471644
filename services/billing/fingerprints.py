"""Fingerprints: do two tables have the same sums by key? Answered without grouping either.

Every key has a weight, a pseudo-random number below 2³². A table's fingerprint is the sum of each
row's amount times the weight of its key. So tables with the same sums have the same fingerprint,
and only where fingerprints differ must the sums be compared one by one, which says where.

A changed amount goes unnoticed only if its weight is 0, and an amount under another key only if
both have the same weight: one case in 2³². The salt is new in every run, so that two changes that
cancel out in one run do not in the next. CRC32 is linear: alone, rows that exchange parts of their
keys would often cancel out, and keys with the same CRC32 would share a weight in every run.
Therefore a weight is the CRC32 of two salted ones, of the key and of its letters in reverse.

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
        text = func.concat_ws(" ", *key)
        both = (func.crc32(each).op("^")(self.salt) for each in (text, func.reverse(text)))
        return cast(func.crc32(func.concat_ws(" ", *both)), Numeric(10, 0))

    def factor(self, name: str) -> ColumnElement[Any]:
        """Return what one of several columns is multiplied by, to have them in one fingerprint."""
        return cast(crc32(f"{name} {self.salt}".encode()), Numeric(10, 0))

    def value(self, *key: object) -> int:
        """Return the weight of a key, given as values."""
        text = " ".join(map(str, key))
        both = (crc32(each.encode()) ^ self.salt for each in (text, text[::-1]))
        return crc32(" ".join(map(str, both)).encode())


def new_weights() -> Weights:
    """Return weights that no run had before."""
    return Weights(randbits(32))
