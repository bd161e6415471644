"""Handle one event: act on it, log why not, or raise for a redelivery."""

from collections.abc import Callable, Mapping

from cloudevents.http import CloudEvent

from functions.common.events import Arrival, Ignored, read_event
from functions.common.faults import Unfinished
from functions.common.log import log, places
from functions.common.pipeline import Pipeline

MAX_NAME = 200
SWEEP = "tollgate.pipelines.sweep.v1"
"""The type of the event that Cloud Scheduler sends."""


class Redelivery(Exception):
    """The platform must deliver the event again; the log says why."""


def handle_event(
    event: CloudEvent,
    handle: Callable[[Arrival, Pipeline], None],
    pipeline: Pipeline,
    *,
    sweep: Callable[[Pipeline], bool] | None = None,
) -> None:
    """Handle one event, and log exactly one line with the decision.

    Args:
        sweep: handles a scheduled event; returns whether it was fully successful.

    Raises:
        Redelivery: the platform must deliver the event again.
    """
    fields = _describe(event)
    try:
        if sweep is not None and event["type"] == SWEEP:
            finished = sweep(pipeline)
        else:
            handle(read_event(event, pipeline.settings.watched), pipeline)
            finished = True
    except Ignored as ignored:
        log(ignored.severity, f"Ignored: {ignored}", decision=ignored.decision, **fields)
        return
    except Unfinished as error:
        message = f"Needs redelivery: {error}"
        if error.fix:
            log("ERROR", message, decision="blocked", **fields)
        else:
            log("WARNING", message, decision="retried", **fields)
        raise Redelivery from error
    except Exception as error:
        # Log the place but not the message, which may contain a secret.
        message = f"Needs redelivery: {type(error).__name__}."
        log("ERROR", message, decision="failed", at=places(error), **fields)
        raise Redelivery from error
    if not finished:
        raise Redelivery


def _describe(event: CloudEvent) -> dict[str, str]:
    """Return fields to find the event's log line by; `drop` is unverified."""
    fields = {"event": str(event["id"])[:MAX_NAME], "subject": str(event.get("subject"))[:MAX_NAME]}
    if isinstance(event.data, Mapping) and "name" in event.data:
        template = "{bucket}/{name}#{generation}"
        parts = {key: event.data.get(key, "") for key in ("bucket", "name", "generation")}
        fields["drop"] = template.format(**{key: str(value)[:1024] for key, value in parts.items()})
    return fields


def redeliver(error: Redelivery) -> tuple[str, int]:
    """Request a redelivery without a traceback, which would quote the request."""
    return "", 500


def reject(error: Exception) -> tuple[str, int]:
    """Acknowledge a request that is not a CloudEvent; a redelivery would not help."""
    reason = f"Ignored: The request is not an event: {type(error).__name__}."
    log("WARNING", reason, decision="ignored")
    return "", 200
