"""Decide what belongs to a drop of data and when it ends; pure functions for events and sweeps.

A drop ends with `_SUCCESS`, or after a minute without a new part. A training run reads the whole
folder, so a dispatch covers everything that was written no later than the object it names.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from functions.common.storage import StoredObject
from registry.data_names import SUCCESS, kind_of


@dataclass(frozen=True)
class Drop:
    """The drop in a model's folder.

    Args:
        newest: the object that ends the drop.
        newest_part: the newest data file or `dataset.json`, or None.
        has_data: whether the folder has data to train on.
    """

    newest: StoredObject
    newest_part: StoredObject | None
    has_data: bool


def find_drop(objects: Iterable[StoredObject], folder: str) -> Drop | None:
    """Return the drop in a model's folder, or None."""
    kinds = {each: kind_of(each.name.removeprefix(folder)) for each in objects}
    parts = [each for each, kind in kinds.items() if each.size and kind in ("settings", "data")]
    markers = [each for each, kind in kinds.items() if kind == "success"]
    newest = max([*parts, *markers], key=_order, default=None)
    if newest is None:
        return None
    has_data = any(kinds[part] == "data" for part in parts)
    return Drop(newest, max(parts, key=_order, default=None), has_data)


@dataclass(frozen=True)
class Dispatch:
    """The drop has ended; dispatch it."""


@dataclass(frozen=True)
class Wait:
    """The drop may end later; check again within `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Skip:
    """This event needs no action; `reason` is a sentence."""

    reason: str


Decision = Dispatch | Wait | Skip


def decide(
    drop: Drop | None,
    *,
    arrived: StoredObject | None,
    covered: datetime | None,
    now: datetime,
    quiet_s: float,
    sweeping: bool = False,
) -> Decision:
    """Decide whether a drop has ended, and whether this event must dispatch it.

    Args:
        arrived: the event's object; None if it is gone or empty, so that the event acts for
            the newest object.
        covered: the time up to which objects are already dispatched.
        quiet_s: the quiet time that ends a drop without `_SUCCESS`.
        sweeping: whether to dispatch without waiting for other events.
    """
    if drop is None or not (drop.has_data or _is_success(drop.newest)):
        return Skip("The folder has no data.")
    if covered is not None and drop.newest.created <= covered:
        return Skip("The drop was already dispatched.")
    if not sweeping:
        if _is_success(drop.newest) and arrived != drop.newest:
            return Skip("The event of _SUCCESS will dispatch the drop.")
        if arrived is not None and _order(drop.newest) > _order(arrived):
            return Skip("The event of a newer object will dispatch the drop.")
    age_s = (now - drop.newest.created).total_seconds()
    left_s = min(quiet_s - age_s, quiet_s)
    if _is_success(drop.newest):
        if _is_fresh(drop, covered):
            return Dispatch()
        if covered is not None and (drop.newest.created - covered).total_seconds() < quiet_s:
            return Skip("_SUCCESS follows a dispatch that covers all data.")
        # Its parts may still arrive; their events will then end the drop.
    return Wait(left_s) if left_s > 0 else Dispatch()


def _is_fresh(drop: Drop, covered: datetime | None) -> bool:
    """Return whether the drop has data that no dispatch covers."""
    if drop.newest_part is None or not drop.has_data:
        return False
    return covered is None or drop.newest_part.created > covered


def _is_success(stored: StoredObject) -> bool:
    return stored.name.endswith(f"/{SUCCESS}")


def _order(stored: StoredObject) -> tuple[datetime, bool, str, str]:
    """Return a sort key: time, then `_SUCCESS` last, then name."""
    return stored.created, _is_success(stored), stored.name, stored.generation
