"""When is a drop of data complete, and which of its many events says so.

A drop ends with `_SUCCESS`, or with a minute in which no part comes. Every part has an event: the
one of the newest waits that minute out, and the others see that they are not the newest.
"""

import time
from dataclasses import replace

from functions.common.events import Arrival, Ignored
from functions.common.pipeline import Pipeline, age_s
from functions.common.storage import StoredObject

SUCCESS = "_SUCCESS"
PARTS = (".csv", ".parquet")
LOOKS = 12
"""How often the folder is listed in a quiet time: one that is overtaken leaves early."""


def handle(arrival: Arrival, pipeline: Pipeline) -> None:
    """Start a training if the arrival ends a drop.

    Raises:
        Ignored: it does not, or it was dealt with before.
        StorageError, GitHubError: to be delivered again.
    """
    if not ends_a_drop(arrival.path):
        raise Ignored("The object is no part of a drop.")
    deadline = time.monotonic() + pipeline.settings.deadline_seconds
    found = pipeline.look_at(arrival)
    if arrival.path != SUCCESS:
        if found.size == 0:
            raise Ignored("The object is empty.")
        arrival, found = wait_until_quiet(arrival, found, pipeline, deadline=deadline)
    pipeline.dispatch_once("data-arrived", arrival, found, deadline=deadline)


def ends_a_drop(path: str) -> bool:
    """Whether an object of that path in a model's folder may be the last of a drop."""
    return path == SUCCESS or ("/" not in path and path.lower().endswith(PARTS))


def wait_until_quiet(
    arrival: Arrival, found: StoredObject, pipeline: Pipeline, *, deadline: float
) -> tuple[Arrival, StoredObject]:
    """Return once a part has been the newest of its folder for the quiet time.

    Returns:
        What ends the drop: the arrival, or what is the newest after that was deleted meanwhile.

    Raises:
        Ignored: something newer is there, whose own event goes on instead, or nothing is left.
    """
    quiet_s = pipeline.settings.quiet_seconds
    while True:
        listed = pipeline.storage.list_folder(arrival.bucket, arrival.folder)
        drop = [each for each in listed if _belongs(each, arrival.folder)]
        newest = max(drop, key=_order, default=None)
        if newest is None or _order(newest) > _order(found):
            raise Ignored("Something newer has arrived.")
        if (newest.name, newest.generation) != (found.name, found.generation):
            # The others' events have left the drop to this one.
            path = newest.name.removeprefix(arrival.folder)
            generation = newest.generation
            arrival = replace(arrival, name=newest.name, generation=generation, path=path)
            found = newest
        left = min(quiet_s - age_s(found), quiet_s, deadline - time.monotonic())
        if left <= 0:
            return arrival, found
        time.sleep(min(left, quiet_s / LOOKS))


def _belongs(found: StoredObject, folder: str) -> bool:
    path = found.name.removeprefix(folder)
    return ends_a_drop(path) and (found.size > 0 or path == SUCCESS)


def _order(found: StoredObject) -> tuple[float, bool, str]:
    """By time; of the same millisecond `_SUCCESS` is the last, then the name decides."""
    return found.created.timestamp(), found.name.endswith(f"/{SUCCESS}"), found.name
