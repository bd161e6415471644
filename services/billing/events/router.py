"""`POST /events`: where usage events arrive."""

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry, Counter

from services.billing.events import service
from services.billing.plans.default import DefaultPlanId
from services.common.contracts import (
    CLOUDEVENTS_BATCH,
    CLOUDEVENTS_ONE,
    MAX_EVENTS_PER_BATCH,
    IngestResult,
    Usage,
    UsageCloudEvent,
)
from services.common.db.database import AppDatabase
from services.common.errors import (
    BadRequest,
    BodyInvalid,
    InsufficientScope,
    ServiceError,
    Unauthenticated,
    Unavailable,
    UnreadableJson,
    error_responses,
)
from services.common.http.routing import new_router
from services.common.identity.guards import RequireScope

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

router = new_router(tag="events")


class NotCloudEvents(ServiceError):
    """The content type is not one of the two for CloudEvents."""

    status = 415
    code = "unsupported_media_type"
    detail = f"Send {CLOUDEVENTS_ONE} or {CLOUDEVENTS_BATCH}."


class BatchTooLarge(ServiceError):
    """The batch has too many events."""

    status = 413
    code = "batch_too_large"
    detail = f"A batch has at most {MAX_EVENTS_PER_BATCH} events."


class EventMetrics:
    """Metrics of the events delivered to this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "tollgate_billing_events",
            "Usage events delivered, by outcome.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("accepted", "duplicate", "conflict", "rejected"):
            self._events.labels(outcome)

    def count(self, result: IngestResult) -> None:
        self._events.labels("accepted").inc(result.accepted)
        self._events.labels("duplicate").inc(result.duplicates)
        self._events.labels("conflict").inc(result.conflicts)
        self._events.labels("rejected").inc(len(result.rejected))


_event = UsageCloudEvent.model_json_schema()
# Inline, because references within a schema do not work inside an OpenAPI document.
_event["properties"]["data"] = _event.pop("$defs")[Usage.__name__]
_request_body = {
    "required": True,
    "content": {
        CLOUDEVENTS_ONE: {"schema": _event},
        CLOUDEVENTS_BATCH: {
            "schema": {"type": "array", "items": _event, "maxItems": MAX_EVENTS_PER_BATCH}
        },
    },
}


@router.post(
    "/events",
    status_code=202,
    dependencies=[Depends(RequireScope("billing:write"))],
    responses=error_responses(
        BadRequest,
        Unauthenticated,
        InsufficientScope,
        BatchTooLarge,
        NotCloudEvents,
        BodyInvalid,
        Unavailable,
    ),
    openapi_extra={"requestBody": _request_body},
)
async def deliver_events(
    request: Request, database: AppDatabase, default_plan: DefaultPlanId
) -> IngestResult:
    """Deliver usage events: CloudEvents 1.0 in structured JSON, one or a batch.

    `(source, id)` identifies an event; it is charged once, however often it is delivered. Valid
    events are accepted even if others in the batch are rejected. A rejected event would be rejected
    again, so do not repeat it. Unless the response is 202, nothing was accepted.
    """
    items = await _items(request)
    with _in_traces_of(items, tracing=request.app.state.tracing):
        result = await service.ingest(
            database, items=items, default_plan=default_plan, now=datetime.now(UTC)
        )
    metrics: EventMetrics = request.app.state.event_metrics
    metrics.count(result)
    return result


async def _items(request: Request) -> list[Any]:
    """Return the events of a request's body, not yet validated."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (CLOUDEVENTS_ONE, CLOUDEVENTS_BATCH):
        raise NotCloudEvents()
    body = await request.json()
    if isinstance(body, UnreadableJson):
        bad = body.error
        raise bad if isinstance(bad, BadRequest) else BadRequest("The body is not valid JSON.")
    if media_type == CLOUDEVENTS_ONE:
        return [body]
    if not isinstance(body, list):
        raise BodyInvalid([{"loc": ["body"], "msg": "A batch must be a JSON array."}])
    if len(body) > MAX_EVENTS_PER_BATCH:
        raise BatchTooLarge()
    return body


def _in_traces_of(items: list[Any], *, tracing: "Tracing | None") -> AbstractContextManager[None]:
    """Return a span in the trace of each event that carries one.

    The trace is in `traceparent` (CloudEvents distributed tracing extension). An invalid one is
    ignored.
    """
    if tracing is None:
        return nullcontext()
    named = [item.get("traceparent") for item in items if isinstance(item, dict)]
    return tracing.follow("bill", [each for each in named if isinstance(each, str)])
