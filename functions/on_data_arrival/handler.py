"""Dispatch a drop once it has ended, whichever of its events finds that out.

Each event of a folder looks at the whole folder. The event of the newest part waits the quiet time
out, and the others leave the drop to it. An event whose object is gone, or empty, answers for what
is the newest now: nobody else may be left to do so.
"""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from functions.common.events import Arrival, Ignored
from functions.common.faults import Unfinished
from functions.common.pipeline import Pipeline, age_s
from functions.common.storage import StoredObject
from functions.on_data_arrival.drops import (
    Drop,
    Ends,
    Leaves,
    decide,
    find_drop,
)
from services.common.data_names import SUPPORTED, kind_of

LOOKS = 12
"""How often the folder is listed in a quiet time: one that is overtaken leaves early."""


def handle(arrival: Arrival, pipeline: Pipeline) -> None:
    """Start a training if the arrival ends a drop.

    Raises:
        Ignored: it does not, or the drop was dealt with before.
        Unfinished: to be delivered again.
    """
    kind = kind_of(arrival.path)
    if kind == "unsupported":
        reason = f"The object's name is unsupported ({SUPPORTED}); rename it."
        raise Ignored(reason, severity="WARNING", decision="unsupported_name")
    if kind == "other":
        raise Ignored("The object is no part of a drop.")
    deadline = time.monotonic() + pipeline.settings.deadline_seconds
    arrived = pipeline.storage.find(arrival.bucket, arrival.name)
    if arrived is not None and arrived.generation != arrival.generation:
        # Generations need not ascend: another one than the present has an event of its own.
        raise Ignored("The object is no longer the one that arrived.", decision="replaced")
    if arrived is not None and kind != "success" and arrived.size == 0:
        arrived = None
    newest = _wait_for_end(arrival, arrived, pipeline, deadline=deadline)
    dispatch_drop(name_drop(arrival, newest), newest, pipeline, deadline=deadline)


def name_drop(arrival: Arrival, newest: StoredObject) -> Arrival:
    """Name a drop after the object that ends it."""
    path = newest.name.removeprefix(arrival.folder)
    return replace(arrival, name=newest.name, generation=newest.generation, path=path)


def dispatch_drop(
    arrival: Arrival,
    newest: StoredObject,
    pipeline: Pipeline,
    *,
    deadline: float,
    gives_up: bool = True,
) -> None:
    """Start the training of a drop, unless something else does so before the very last moment.

    Raises:
        Ignored: it was dispatched, replaced or given up.
        Unfinished: to be tried again.
    """

    def check() -> None:
        covered = pipeline.records.covered_until(arrival.model, since=newest.created)
        if covered is not None and covered >= newest.created:
            raise Ignored("The drop was dispatched before.", decision="dispatched_before")
        present = pipeline.storage.find(arrival.bucket, arrival.name)
        if present is not None and present.generation != newest.generation:
            raise Ignored("The object is no longer the one that arrived.", decision="replaced")

    pipeline.dispatch_once(
        "data-arrived", arrival, newest, deadline=deadline, check=check, gives_up=gives_up
    )


def look(arrival: Arrival, pipeline: Pipeline) -> tuple[Drop | None, datetime | None]:
    """Find the drop in an arrival's folder, and the time up to which the folder was dispatched."""
    drop = find_drop(pipeline.storage.list_folder(arrival.bucket, arrival.folder), arrival.folder)
    if drop is None:
        return None, None
    since = drop.newest.created - timedelta(seconds=pipeline.settings.quiet_seconds)
    if drop.newest_part is not None:
        since = min(since, drop.newest_part.created)
    return drop, pipeline.records.covered_until(arrival.model, since=since)


def _wait_for_end(
    arrival: Arrival, arrived: StoredObject | None, pipeline: Pipeline, *, deadline: float
) -> StoredObject:
    """Return what ends the drop, once it has ended.

    Raises:
        Ignored: another event is to dispatch it, or nothing is left.
        Unfinished: the quiet time is longer than a delivery may take.
    """
    quiet_s = pipeline.settings.quiet_seconds
    while True:
        drop, covered = look(arrival, pipeline)
        decision = decide(
            drop, arrived=arrived, covered=covered, now=datetime.now(UTC), quiet_s=quiet_s
        )
        if drop is None or isinstance(decision, Leaves):
            reason = decision.reason if isinstance(decision, Leaves) else ""
            raise Ignored(reason, decision="left")
        if age_s(drop.newest) > pipeline.settings.max_event_age_seconds:
            raise Ignored("The object has been there for too long.", severity="WARNING")
        if isinstance(decision, Ends):
            return drop.newest
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise Unfinished("The drop has not ended within the time of one delivery.")
        arrived = drop.newest
        time.sleep(min(decision.seconds, quiet_s / LOOKS, left_s))
