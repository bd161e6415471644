"""Pins: while a model is pinned, automatic releases are published but do not go live.

Two kinds of records pin a model. A person writes `<store>/<model>/pins/<number>.json`. A rollback,
by hand or automatic, pins by itself: its release record says so, so that whoever may roll back
needs no further right in the store. The newer of the two decides, and `unpin` ends both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from services.common.model_records import (
    PinRecord,
    StoreError,
    VersionNotFound,
    VersionRefused,
    Withdrawal,
)
from services.common.model_store import (
    MAX_TRIES,
    ModelStore,
    ReleaseRecord,
    TrustedKeys,
    next_number,
)


@dataclass(frozen=True)
class Pin:
    """Why automatic releases of a model do not go live.

    Args:
        version: what stays live; None after the withdrawal of a first release.
        by_rollback: whether a rollback pinned it, not a person's `pin`.
        until: when it ends by itself; None if it does not.
    """

    version: str | None
    by_rollback: bool
    until: datetime | None
    by: str
    reason: str
    time: datetime

    def describe(self) -> str:
        """A clause for people: `pinned to version … by ada until …: why`."""
        told = f"pinned to version {self.version}" if self.version else "pinned to no version"
        if self.by_rollback:
            told += " by a rollback"
        told += f" ({self.by}, {self.time.astimezone(UTC):%Y-%m-%d %H:%M}Z)"
        if self.until:
            told += f" until {self.until.astimezone(UTC):%Y-%m-%d %H:%M}Z"
        return f"{told}: {self.reason}" if self.reason else told


class Pinned(StoreError):
    """An automatic release was held back."""

    def __init__(self, model: str, pin: Pin) -> None:
        by_hand = " or a release by hand" if pin.by_rollback else ""  # no release ends a `pin`
        super().__init__(
            f"Model '{model}' is {pin.describe()}. Automatic releases do not go live until "
            f"`tollgate models unpin {model}`{by_hand}."
        )
        self.pin = pin


class PinTaken(StoreError):
    """Another writer's pin record was first."""

    def __init__(self, winner: PinRecord) -> None:
        what = f"pinned to version {winner.version}" if winner.version else "unpinned"
        super().__init__(f"The model was {what} by {winner.by} in the meantime.")
        self.winner = winner


def decide_pin(
    written: PinRecord | None, rollback: ReleaseRecord | None, *, now: datetime
) -> Pin | None:
    """The pin in force.

    Args:
        written: the newest pin record.
        rollback: the record that decided what is live, if it is a rollback.
    """
    if rollback is not None and rollback.number > (written.release if written else 0):
        return Pin(
            rollback.version, True, None, rollback.by, rollback.reason.strip(), rollback.time
        )
    if written is None or written.action == "unpin":
        return None
    if written.until is not None and written.until <= now:
        return None
    return Pin(
        written.version, False, written.until, written.by, written.reason.strip(), written.time
    )


def find_pin(store: ModelStore, model: str, trusted: TrustedKeys) -> Pin | None:
    """The pin of a model that is in force now, or None."""
    rollback = _deciding_rollback(store, model, trusted)
    return decide_pin(newest_pin(store, model), rollback, now=datetime.now(UTC))


def newest_pin(store: ModelStore, model: str) -> PinRecord | None:
    """The newest valid pin record; malformed ones are passed over."""
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
    """Write the pin record after the highest number that exists.

    Args:
        decide: gets the number and returns the record to write, or None if nothing is left to do.

    Raises:
        PinTaken: another writer was first, and `decide` still wants a record.
    """
    winner: PinRecord | None = None
    for _ in range(MAX_TRIES):
        number = next_number(store.list_pins(model))
        record = decide(number)
        if record is None:
            return None
        if winner is not None:
            raise PinTaken(winner)
        if store.create_pin(model, record):
            return record
        try:
            winner = store.find_pin(model, number)
        except VersionRefused:
            winner = None  # a malformed record only uses up its number
    raise StoreError(f"Other writers took every pin number of {model}; try again.")


def _deciding_rollback(store: ModelStore, model: str, trusted: TrustedKeys) -> ReleaseRecord | None:
    """The record that decided which version is live, if that is a rollback.

    Records of a canary or shadow do not decide it: they repeat the live version.
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
