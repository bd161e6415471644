"""Pins: new versions of a pinned model are published but not released automatically.

Two kinds of records pin a model. A person writes `<store>/<model>/pins/<number>.json`. A rollback,
manual or automatic, also pins: its release record is enough, so rolling back needs no other
permission in the store. The newer of the two records decides, and `unpin` ends both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from registry.keys import TrustedKeys
from registry.records import (
    PinRecord,
    StoreError,
    VersionNotFound,
    VersionRefused,
    Withdrawal,
)
from registry.store import ModelStore, ReleaseRecord


@dataclass(frozen=True)
class Pin:
    """The reason why new versions of a model are not released automatically.

    Args:
        version: the version that stays live; None after the first release was withdrawn.
        by_rollback: True if a rollback pinned the model, False if a person did.
        until: when the pin expires; None for never.
    """

    version: str | None
    by_rollback: bool
    until: datetime | None
    by: str
    reason: str
    time: datetime

    def describe(self) -> str:
        """Return a phrase for messages: `pinned to version … (ada@lab, …) until …: reason`."""
        phrase = f"pinned to version {self.version}" if self.version else "pinned to no version"
        if self.by_rollback:
            phrase += " by a rollback"
        phrase += f" ({self.by}, {self.time.astimezone(UTC):%Y-%m-%d %H:%M}Z)"
        if self.until:
            phrase += f" until {self.until.astimezone(UTC):%Y-%m-%d %H:%M}Z"
        return f"{phrase}: {self.reason}" if self.reason else phrase


class Pinned(StoreError):
    """A version was not released automatically because the model is pinned."""

    def __init__(self, model: str, pin: Pin) -> None:
        or_release = " or a manual release" if pin.by_rollback else ""  # no release ends a `pin`
        super().__init__(
            f"Model '{model}' is {pin.describe()}. New versions are not released automatically "
            f"until `tollgate models unpin {model}`{or_release}."
        )
        self.pin = pin


class PinTaken(StoreError):
    """Another writer pinned or unpinned the model first."""

    def __init__(self, winner: PinRecord) -> None:
        change = f"pinned to version {winner.version}" if winner.version else "unpinned"
        super().__init__(f"The model was {change} by {winner.by} in the meantime.")
        self.winner = winner


def decide_pin(
    newest: PinRecord | None, rollback: ReleaseRecord | None, *, now: datetime
) -> Pin | None:
    """Return the pin in force.

    Args:
        newest: the newest pin record.
        rollback: the record that determines the live version, if it is a rollback.
    """
    if rollback is not None and rollback.number > (newest.release if newest else 0):
        return Pin(
            rollback.version, True, None, rollback.by, rollback.reason.strip(), rollback.time
        )
    if newest is None or newest.action == "unpin":
        return None
    if newest.until is not None and newest.until <= now:
        return None
    return Pin(newest.version, False, newest.until, newest.by, newest.reason.strip(), newest.time)


def find_pin(store: ModelStore, model: str, trusted: TrustedKeys) -> Pin | None:
    """Return the model's pin that is in force now, or None."""
    rollback = _deciding_rollback(store, model, trusted)
    return decide_pin(newest_pin(store, model), rollback, now=datetime.now(UTC))


def newest_pin(store: ModelStore, model: str) -> PinRecord | None:
    """Return the newest valid pin record, skipping malformed ones."""
    for number in reversed(store.list_pins(model)):
        try:
            record = store.find_pin(model, number)
        except VersionRefused:
            continue
        if record is not None:
            return record
    return None


def append_pin(
    store: ModelStore, model: str, *, decide: Callable[[int], PinRecord | None]
) -> PinRecord | None:
    """Write a pin record under the next free number.

    Args:
        decide: receives a number and returns the record to write under it, or None for no record.

    Raises:
        PinTaken: another writer was first, and `decide` still returns a record.
    """

    def decide_again(number: int, winner: PinRecord | None) -> PinRecord | None:
        record = decide(number)
        if record is not None and winner is not None:
            raise PinTaken(winner)
        return record

    return store.append_pin(model, decide=decide_again)


def _deciding_rollback(store: ModelStore, model: str, trusted: TrustedKeys) -> ReleaseRecord | None:
    """Return the record that determines the live version, if it is a rollback.

    Canary and shadow records are skipped because they only repeat the live version.
    """
    for number in reversed(store.list_releases(model)):
        try:
            record = store.find_record(model, number)
            if record is None or record.action in ("canary", "shadow"):
                continue
            if not isinstance(record, Withdrawal):
                store.open_release(model, record, trusted)
        except (VersionNotFound, VersionRefused):
            continue
        return record if record.action == "rollback" else None
    return None
