"""Start a deployment for each release in the model store."""

import re
import time

from functions.common.events import Arrival, Ignored
from functions.common.pipeline import Pipeline

RELEASE = re.compile(r"releases/[0-9]{8}\.json")


def handle(arrival: Arrival, pipeline: Pipeline) -> None:
    """Start the deployment of a release.

    Raises:
        Ignored: the object is not a release, or was already dispatched or given up.
        StorageError, GitHubError: the event must be delivered again.
    """
    if not RELEASE.fullmatch(arrival.path):
        raise Ignored("The object is not a release.")
    deadline = time.monotonic() + pipeline.settings.deadline_seconds
    stored = pipeline.get_current(arrival)
    if stored.size == 0:
        raise Ignored("The object is empty.")
    pipeline.dispatch_once("model-released", arrival, stored, deadline=deadline)
