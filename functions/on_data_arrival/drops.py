"""What belongs to a drop of data, and what ends it: pure decisions, for events and sweeps alike.

A drop ends with `_SUCCESS`, or with a minute in which no part comes. Whether it was dispatched
before is a matter of time: a training reads all that is in the folder, so a dispatch covers
everything that was written no later than the object it names.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from functions.common.storage import StoredObject
from services.common.data_names import SUCCESS, kind_of


@dataclass(frozen=True)
class Drop:
    """What lies in a model's folder.

    Args:
        newest: the object that ends the drop.
        newest_part: the newest data or `dataset.json`; None if there is none.
        has_data: whether there is anything to train on.
    """

    newest: StoredObject
    newest_part: StoredObject | None
    has_data: bool


def find_drop(listed: Iterable[StoredObject], folder: str) -> Drop | None:
    """Find the drop in a model's folder; None if nothing there belongs to one."""
    kinds = {each: kind_of(each.name.removeprefix(folder)) for each in listed}
    parts = [each for each, kind in kinds.items() if each.size and kind in ("settings", "data")]
    markers = [each for each, kind in kinds.items() if kind == "success"]
    newest = max([*parts, *markers], key=_order, default=None)
    if newest is None:
        return None
    has_data = any(kinds[part] == "data" for part in parts)
    return Drop(newest, max(parts, key=_order, default=None), has_data)


@dataclass(frozen=True)
class Ends:
    """The drop has ended: dispatch it."""


@dataclass(frozen=True)
class Waits:
    """Look again, at the latest after `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Leaves:
    """There is nothing to do, for this `reason`."""

    reason: str


Decision = Ends | Waits | Leaves


def decide(
    drop: Drop | None,
    *,
    arrived: StoredObject | None,
    covered: datetime | None,
    now: datetime,
    quiet_s: float,
    sweeping: bool = False,
) -> Decision:
    """Decide whether a drop has ended, and whether this event is the one to dispatch it.

    Args:
        arrived: the object that the event answers for; None if it is gone or empty, so that the
            event answers for whatever is the newest now.
        covered: the time up to which objects were dispatched before.
        quiet_s: the quiet time that ends a drop without `_SUCCESS`.
        sweeping: leave nothing to an event that should come.
    """
    if drop is None or not (drop.has_data or _is_success(drop.newest)):
        return Leaves("There is no data in the folder.")
    if covered is not None and drop.newest.created <= covered:
        return Leaves("The drop was dispatched before.")
    if not sweeping:
        if _is_success(drop.newest) and arrived != drop.newest:
            return Leaves("_SUCCESS has ended the drop, and has an event of its own.")
        if arrived is not None and _order(drop.newest) > _order(arrived):
            return Leaves("Something newer has arrived, and has an event of its own.")
    age_s = (now - drop.newest.created).total_seconds()
    left_s = min(quiet_s - age_s, quiet_s)
    if _is_success(drop.newest):
        if _is_fresh(drop, covered):
            return Ends()
        if covered is not None and (drop.newest.created - covered).total_seconds() < quiet_s:
            return Leaves("_SUCCESS follows a dispatch that covers all data.")
        # Its parts may be on their way: their events then end the drop.
    return Waits(left_s) if left_s > 0 else Ends()


def _is_fresh(drop: Drop, covered: datetime | None) -> bool:
    """Whether there is data that no dispatch has covered."""
    if drop.newest_part is None or not drop.has_data:
        return False
    return covered is None or drop.newest_part.created > covered


def _is_success(found: StoredObject) -> bool:
    return found.name.endswith(f"/{SUCCESS}")


def _order(found: StoredObject) -> tuple[datetime, bool, str, str]:
    """By time; of the same instant `_SUCCESS` is the last, then the name decides."""
    return found.created, _is_success(found), found.name, found.generation
