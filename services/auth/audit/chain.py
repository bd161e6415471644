"""The hash chain of the audit log: an entry's hash covers the entry and the hash before it.

Changing, removing or inserting an entry changes every later hash. `tollgate audit verify`
recomputes them all.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import rfc8785

FIRST_PREVIOUS = "0" * 64
"""What stands for the previous hash in the first entry."""


class Entry(Protocol):
    """An entry of the audit log."""

    @property
    def id(self) -> int: ...
    @property
    def time(self) -> datetime: ...
    @property
    def actor(self) -> str | None: ...
    @property
    def action(self) -> str: ...
    @property
    def target(self) -> str | None: ...
    @property
    def address(self) -> str | None: ...


class ChainedEntry(Entry, Protocol):
    """An entry with its hash."""

    @property
    def hash(self) -> str: ...


class SealedEntry(NamedTuple):
    """An entry that is being appended to the chain."""

    id: int
    time: datetime
    actor: str | None
    action: str
    target: str | None
    address: str | None
    hash: str


def entry_document(entry: Entry) -> dict[str, str | int | None]:
    """Return an entry as the JSON object that clients see, without its hash."""
    time = entry.time.astimezone(UTC).isoformat(timespec="microseconds")
    return {
        "id": entry.id,
        "time": time.replace("+00:00", "Z"),
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "address": entry.address,
    }


def hash_entry(entry: Entry, *, previous: str) -> str:
    """Return the hex SHA-256 of the previous hash and the entry as canonical JSON (RFC 8785)."""
    return hashlib.sha256(previous.encode() + rfc8785.dumps(entry_document(entry))).hexdigest()


def find_break(
    entries: Sequence[ChainedEntry], *, previous_id: int, previous_hash: str
) -> int | None:
    """Return the id of the first entry that does not continue the chain, or None.

    Args:
        entries: consecutive entries, oldest first.
        previous_id: id of the entry before them; 0 if they are the first.
        previous_hash: hash of that entry.
    """
    for entry in entries:
        expected = hash_entry(entry, previous=previous_hash)
        if entry.id != previous_id + 1 or entry.hash != expected:
            return entry.id
        previous_id, previous_hash = entry.id, entry.hash
    return None
