"""How a function answers an event: by doing it, by a line why not, or by raising."""

from collections.abc import Callable, Mapping

from cloudevents.http import CloudEvent

from functions.common.events import Arrival, Ignored, read_event
from functions.common.faults import Unfinished
from functions.common.log import log, places
from functions.common.pipeline import Pipeline

MAX_NAME = 200
SWEEP = "tollgate.pipelines.sweep.v1"
"""Type of the event that Cloud Scheduler sends."""


class Redelivery(Exception):
    """The platform is to deliver the event again; what went wrong is in the log."""


def answer(
    event: CloudEvent,
    handle: Callable[[Arrival, Pipeline], None],
    pipeline: Pipeline,
    *,
    sweep: Callable[[Pipeline], bool] | None = None,
) -> None:
    """Answer one event with exactly one line that says what was decided.

    Args:
        sweep: what a scheduled event starts; returns whether all went well.

    Raises:
        Redelivery: the platform is to deliver it again.
    """
    about = _describe(event)
    try:
        if sweep is not None and event["type"] == SWEEP:
            finished = sweep(pipeline)
        else:
            handle(read_event(event, pipeline.settings.watched), pipeline)
            finished = True
    except Ignored as ignored:
        log(ignored.severity, f"Ignored: {ignored}", decision=ignored.decision, **about)
        return
    except Unfinished as error:
        line = f"To be delivered again: {error}"
        if error.fix:
            log("ERROR", line, decision="blocked", **about)
        else:
            log("WARNING", line, decision="retried", **about)
        raise Redelivery from error
    except Exception as error:
        # Where, and not what: the words of an error that nobody foresaw may hold a secret.
        line = f"To be delivered again: {type(error).__name__}."
        log("ERROR", line, decision="failed", at=places(error), **about)
        raise Redelivery from error
    if not finished:
        raise Redelivery


def _describe(event: CloudEvent) -> dict[str, str]:
    """Fields by which the event's line is found; `drop` as the event names it, believed or not."""
    about = {"event": str(event["id"])[:MAX_NAME], "subject": str(event.get("subject"))[:MAX_NAME]}
    if isinstance(event.data, Mapping) and "name" in event.data:
        named = "{bucket}/{name}#{generation}"
        parts = {key: event.data.get(key, "") for key in ("bucket", "name", "generation")}
        about["drop"] = named.format(**{key: str(value)[:1024] for key, value in parts.items()})
    return about


def redeliver(error: Redelivery) -> tuple[str, int]:
    """Have the event delivered again, without a traceback: those quote what was sent."""
    return "", 500


def reject(error: Exception) -> tuple[str, int]:
    """Acknowledge what is no CloudEvent at all: another delivery would not make it one."""
    reason = f"Ignored: The request is no event: {type(error).__name__}."
    log("WARNING", reason, decision="ignored")
    return "", 200
