"""When signing keys are published, sign and retire.

A key is published first, signs only when no verifier can still have a key set without it, and
retires when the last token that it signed has expired. The times are stored when the key is, so
all replicas switch at the same moment, and nothing has to happen in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from services.common.identity.tokens import LEEWAY_S, MAX_LIFETIME_S

RELOAD_S = 2
"""How often every replica looks for new keys."""
PUBLISHED_BEFORE = timedelta(hours=1)
"""How long a key is published before it signs: well beyond the five minutes that responses with the
key set may be cached, the five minutes for which verifiers keep it, and differences of clocks."""
KEPT_AFTER = timedelta(seconds=MAX_LIFETIME_S + LEEWAY_S)
"""How long a key still verifies once another signs."""


class Scheduled(Protocol):
    """A key's times; `retires_at` is unset while no other key follows it."""

    @property
    def signs_from(self) -> datetime: ...
    @property
    def retires_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """When a key begins to sign, and when its last token has expired."""

    signs_from: datetime
    retires_at: datetime | None = None


Key = TypeVar("Key", bound=Scheduled)


def is_due(keys: Sequence[Scheduled], *, now: datetime, max_age: timedelta | None) -> bool:
    """Return whether a new key must be created: no key exists yet, or the newest is too old.

    While a key waits to sign, it is the newest, so no further one is created.
    """
    newest = find_newest(keys)
    if newest is None:
        return True
    return max_age is not None and now - newest.signs_from >= max_age


def find_newest(keys: Sequence[Key]) -> Key | None:
    """Return the key that no other follows."""
    return next((key for key in keys if key.retires_at is None), None)


def find_signing(keys: Sequence[Key], *, now: datetime) -> Key | None:
    """Return the newest key that may sign."""
    started = [key for key in keys if key.signs_from <= now and verifies(key, now=now)]
    return max(started, key=_rank, default=None)


def verifies(key: Scheduled, *, now: datetime) -> bool:
    """Return whether tokens that the key signed are valid."""
    return key.retires_at is None or now < key.retires_at


def describe(key: Key, keys: Sequence[Key], *, now: datetime) -> str:
    """Return what a key does now: `published`, `signs`, `verifies` or `retired`."""
    if not verifies(key, now=now):
        return "retired"
    if key.signs_from > now:
        return "published"
    return "signs" if key is find_signing(keys, now=now) else "verifies"


def _rank(key: Scheduled) -> tuple[datetime, bool]:
    return key.signs_from, key.retires_at is None
