"""A trace collector: OTLP over HTTP, parsed with the packages' own classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from harness.http_servers import Request, Response, serving


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    """One span; ids are hexadecimal, `parent` and `links` are ids of other spans."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, Any]


class Collector:
    """Stores what it receives, and parses it only on request, so that it does not slow a load."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._bodies: list[bytes] = []

    def take(self, body: bytes) -> None:
        """Store the body of one request."""
        self._bodies.append(body)

    @property
    def spans(self) -> list[CollectedSpan]:
        """The spans of all requests so far, in order."""
        spans = []
        for request in self._requests():
            for resource in request.resource_spans:
                service = _values(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    spans += [_collected(service, span) for span in scope.spans]
        return spans

    @property
    def texts(self) -> list[str]:
        """Everything received, one text per request, for searching."""
        return list(map(str, self._requests()))

    def _requests(self) -> list[ExportTraceServiceRequest]:
        return list(map(ExportTraceServiceRequest.FromString, self._bodies))

    def find(self, **fields: str) -> list[CollectedSpan]:
        """Return the spans so far with these field values."""
        return [
            span
            for span in self.spans
            if all(getattr(span, name) == value for name, value in fields.items())
        ]


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """Run a collector inside the block, by default on a free port.

    Each response ends its connection, so that none can be used after the block.
    """
    collector = Collector("")

    def answer(request: Request) -> Response:
        if request.path == "/v1/traces":
            collector.take(request.body)
        body = ExportTraceServiceResponse().SerializeToString()
        status = 200 if request.path == "/v1/traces" else 404
        return Response(status, body, {"Connection": "close"})

    with serving(answer, port=port) as collector.url:
        yield collector


def _collected(service: str, span: Any) -> CollectedSpan:
    return CollectedSpan(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_values(span.attributes),
    )


def _values(attributes: Any) -> dict[str, Any]:
    """Return attributes whose values are text or numbers; for a list, its first element."""
    values = {}
    for each in attributes:
        value = each.value
        if value.HasField("array_value"):
            value = value.array_value.values[0]
        values[each.key] = getattr(value, value.WhichOneof("value"))
    return values
