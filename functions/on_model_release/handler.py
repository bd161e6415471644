"""Which objects of a model store are releases."""

import re
import time

from functions.common.events import Arrival, Ignored
from functions.common.pipeline import Pipeline

RELEASE = re.compile(r"releases/[0-9]{8}\.json")


def handle(arrival: Arrival, pipeline: Pipeline) -> None:
    """Start the deployment of a release.

    Raises:
        Ignored: the object is no release, or it was dealt with before.
        StorageError, GitHubError: to be delivered again.
    """
    if not RELEASE.fullmatch(arrival.path):
        raise Ignored("The object is no release.")
    deadline = time.monotonic() + pipeline.settings.deadline_seconds
    found = pipeline.look_at(arrival)
    if found.size == 0:
        raise Ignored("The object is empty.")
    pipeline.dispatch_once("model-released", arrival, found, deadline=deadline)
