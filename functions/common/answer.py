"""How a function answers an event: by doing it, by a line why not, or by raising."""

from collections.abc import Callable

from cloudevents.http import CloudEvent

from functions.common.events import Arrival, Ignored, read_event
from functions.common.github import GitHubError
from functions.common.log import log
from functions.common.pipeline import Pipeline
from functions.common.storage import StorageError

MAX_NAME = 200


def answer(
    event: CloudEvent, handle: Callable[[Arrival, Pipeline], None], pipeline: Pipeline
) -> None:
    """Answer one event.

    Raises:
        GitHubError, StorageError: the platform is to deliver the event again.
    """
    about = {"event": str(event["id"])[:MAX_NAME], "subject": str(event.get("subject"))[:MAX_NAME]}
    try:
        handle(read_event(event, pipeline.settings.watched), pipeline)
    except Ignored as ignored:
        log(ignored.severity, f"Ignored: {ignored}", **about)
    except (GitHubError, StorageError) as error:
        log("WARNING", f"To be delivered again: {error}", **about)
        raise


def reject(error: Exception) -> tuple[str, int]:
    """Acknowledge what is no CloudEvent at all: another delivery would not make it one."""
    log("WARNING", f"Ignored: The request is no event: {type(error).__name__}.")
    return "", 200
