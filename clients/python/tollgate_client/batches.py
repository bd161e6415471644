"""Splitting a call into batches, and the idempotency key of each."""

from __future__ import annotations

import hashlib

MAX_BODY_BYTES = 8 * 2**20
"""A service's default limit; one with a lower limit answers 413, and the batch is halved."""


def split(start: int, stop: int, *, size: int) -> list[tuple[int, int]]:
    """Return ranges of at most `size` rows that together are `start` up to `stop`."""
    return [(at, min(at + size, stop)) for at in range(start, stop, size)]


def batch_key(key: str, start: int, stop: int, *, count: int) -> str:
    """Return the idempotency key of a batch: always the same one for the same rows of a call.

    Args:
        key: the call's own key, which a batch with all of its `count` rows keeps.
    """
    if (start, stop) == (0, count):
        return key
    return hashlib.sha256(f"{key}\0{start}\0{stop}".encode()).hexdigest()
