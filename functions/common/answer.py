"""How a function answers an event: by doing it, by a line why not, or by raising."""

import traceback
from collections.abc import Callable
from pathlib import Path

from cloudevents.http import CloudEvent

from functions.common.events import Arrival, Ignored, read_event
from functions.common.github import GitHubError
from functions.common.log import log
from functions.common.pipeline import Pipeline
from functions.common.storage import StorageError

MAX_NAME = 200


class Redelivery(Exception):
    """The platform is to deliver the event again; what went wrong is in the log."""


def answer(
    event: CloudEvent, handle: Callable[[Arrival, Pipeline], None], pipeline: Pipeline
) -> None:
    """Answer one event.

    Raises:
        Redelivery: the platform is to deliver it again.
    """
    about = {"event": str(event["id"])[:MAX_NAME], "subject": str(event.get("subject"))[:MAX_NAME]}
    try:
        handle(read_event(event, pipeline.settings.watched), pipeline)
    except Ignored as ignored:
        log(ignored.severity, f"Ignored: {ignored}", **about)
    except (GitHubError, StorageError) as error:
        log("WARNING", f"To be delivered again: {error}", **about)
        raise Redelivery from error
    except Exception as error:
        # Where, and not what: the words of an error that nobody foresaw may hold a secret.
        name = type(error).__name__
        log("ERROR", f"To be delivered again: {name}.", at=places(error), **about)
        raise Redelivery from error


def redeliver(error: Redelivery) -> tuple[str, int]:
    """Have the event delivered again, without a traceback: those quote what was sent."""
    return "", 500


def reject(error: Exception) -> tuple[str, int]:
    """Acknowledge what is no CloudEvent at all: another delivery would not make it one."""
    log("WARNING", f"Ignored: The request is no event: {type(error).__name__}.")
    return "", 200


def places(error: BaseException) -> str:
    """Where an error was raised: file and line of each frame, the innermost first."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
