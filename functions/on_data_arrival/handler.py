"""Dispatch a drop once it has ended.

Each event checks the whole folder. The event of the newest part waits out the quiet time, and the
other events leave the drop to it. An event whose object is gone or empty acts for the newest
object, because there may be no other event left to do so.
"""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from functions.common.events import Arrival, Ignored
from functions.common.faults import Unfinished
from functions.common.pipeline import Pipeline, age_s
from functions.common.storage import StoredObject
from functions.on_data_arrival.drops import (
    Dispatch,
    Drop,
    Skip,
    decide,
    find_drop,
)
from registry.data_names import SUPPORTED, kind_of

CHECKS_PER_QUIET_TIME = 12
"""How often the folder is listed in a quiet time, so that an overtaken event ends early."""


def handle(arrival: Arrival, pipeline: Pipeline) -> None:
    """Start a training run if the arrival ends a drop.

    Raises:
        Ignored: it does not end a drop, or the drop was already dispatched or given up.
        Unfinished: the event must be delivered again.
    """
    kind = kind_of(arrival.path)
    if kind == "unsupported":
        reason = f"The object's name is unsupported ({SUPPORTED}); rename it."
        raise Ignored(reason, severity="WARNING", decision="unsupported_name")
    if kind == "other":
        raise Ignored("The object is not part of a drop.")
    deadline = time.monotonic() + pipeline.settings.deadline_seconds
    arrived = pipeline.storage.find(arrival.bucket, arrival.name)
    if arrived is not None and arrived.generation != arrival.generation:
        # Generations need not ascend; the current generation has its own event.
        raise Ignored("The object was deleted or replaced.", decision="replaced")
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
    """Start the training run of a drop, unless another delivery has done so by the last moment.

    Raises:
        Ignored: the drop was dispatched, replaced or given up.
        Unfinished: the dispatch must be retried.
    """

    def check() -> None:
        covered = pipeline.records.covered_until(arrival.model, since=newest.created)
        if covered is not None and covered >= newest.created:
            raise Ignored("The drop was already dispatched.", decision="dispatched_before")
        current = pipeline.storage.find(arrival.bucket, arrival.name)
        if current is not None and current.generation != newest.generation:
            raise Ignored("The object was deleted or replaced.", decision="replaced")

    pipeline.dispatch_once(
        "data-arrived", arrival, newest, deadline=deadline, check=check, gives_up=gives_up
    )


def find_folder_drop(arrival: Arrival, pipeline: Pipeline) -> tuple[Drop | None, datetime | None]:
    """Return the drop in an arrival's folder, and the time up to which it was dispatched."""
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
    """Wait until the drop has ended, and return the object that ends it.

    Raises:
        Ignored: another event will dispatch the drop, or the folder has no data.
        Unfinished: the drop did not end within the time limit of a delivery.
    """
    quiet_s = pipeline.settings.quiet_seconds
    while True:
        drop, covered = find_folder_drop(arrival, pipeline)
        decision = decide(
            drop, arrived=arrived, covered=covered, now=datetime.now(UTC), quiet_s=quiet_s
        )
        if drop is None or isinstance(decision, Skip):
            reason = decision.reason if isinstance(decision, Skip) else ""
            raise Ignored(reason, decision="left")
        if age_s(drop.newest) > pipeline.settings.max_event_age_seconds:
            raise Ignored("The object is too old.", severity="WARNING")
        if isinstance(decision, Dispatch):
            return drop.newest
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise Unfinished("The drop did not end within the time limit of one delivery.")
        arrived = drop.newest
        time.sleep(min(decision.seconds, quiet_s / CHECKS_PER_QUIET_TIME, left_s))
