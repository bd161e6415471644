"""OpenTelemetry traces of a service; imported only if tracing is enabled.

Spans contain methods, route templates, status codes, SQL statements without values, and the ids in
response headers. They never contain request paths, query strings, bodies, parameters, or exception
messages, which may repeat any of these. Names follow OpenTelemetry's semantic conventions, headers
W3C Trace Context.
"""

from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from threading import Thread
from typing import Any

import httpx
import structlog
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.telemetry.requests import METHODS, UNLOGGED

MAX_FOLLOWED = 500
"""A batch operation creates spans in at most this many traces: each takes event loop time."""
FLUSH_S = 2.0
"""How long a stopping service waits for its last spans to be sent."""
RECORDED_HEADERS = frozenset(
    {b"x-request-id", b"x-model-name", b"x-model-version", b"x-usage-event"}
)
"""Response headers recorded in spans, to find the matching receipts and log lines."""

_MAX_TRACEPARENT_CHARS = 128
_TRACE_ID = "trace_id"
"""Key in the request's state: the id of its trace, if it starts one; 0 without a trace."""
_PORTS = {"http": 80, "https": 443}
_propagator = TraceContextTextMapPropagator()


class Tracing:
    """Owns the queue of finished spans and the thread that sends them.

    The queue is bounded and never blocks, so spans are lost while the collector is unavailable. The
    SDK reads its standard variables, such as `OTEL_TRACES_SAMPLER`.

    Args:
        service: the service's name in traces.
        endpoint: base URL of an OTLP/HTTP collector.
    """

    def __init__(self, service: str, *, endpoint: str) -> None:
        resource = Resource.create({"service.namespace": "tollgate", "service.name": service})
        self._ids = _Ids()
        self._provider = TracerProvider(
            resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tollgate")
        # A parent-based sampler delegates to this if there is no parent; calling it is faster.
        self._sampler = getattr(self._provider.sampler, "_root", self._provider.sampler)

    def close(self) -> None:
        """Send the queued spans; those not sent within `FLUSH_S` are lost."""
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(FLUSH_S)

    def around_app(self, app: ASGIApp) -> ASGIApp:
        """Wrap an ASGI app to create a span for each request, except probes and `/metrics`."""
        return _TracedApp(app, self)

    def around_client(self, transport: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """Wrap a client's transport to create and propagate a span for each request."""
        return _TracedTransport(transport, self)

    # -- requests --------------------------------------------------------------------------------

    def answer(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, route: str = ""
    ) -> Awaitable[None]:
        """Call an app in a span that continues the caller's trace.

        Most requests have no span; for them this adds no coroutine.

        Args:
            route: the route template; default the one that FastAPI matches.
        """
        if not self.wants(scope):
            return app(scope, receive, send)
        self._ids.next = scope["state"][_TRACE_ID]
        parent = _callers_trace(scope["headers"])
        span = self._tracer.start_span(_method(scope), context=parent, kind=SpanKind.SERVER)
        self._ids.next = 0
        if span.is_recording():
            return self._record(span, app, scope, receive, send, route=route)
        return self._carry(span, app, scope, receive, send)

    def wants(self, scope: Scope) -> bool:
        """Return whether a request belongs to a trace or starts one; it is decided once.

        Most requests do neither. Consulting the sampler first, with the id that the trace would
        get, costs half as much as creating a span that is not recorded.
        """
        state: dict[str, Any] = scope.setdefault("state", {})
        if _TRACE_ID not in state:
            state[_TRACE_ID] = trace_id = self._ids.generate_trace_id()
            if _callers_trace(scope["headers"]) is None:
                result = self._sampler.should_sample(
                    None, trace_id, _method(scope), SpanKind.SERVER
                )
                if result.decision is not Decision.RECORD_AND_SAMPLE:
                    state[_TRACE_ID] = 0
        return bool(state[_TRACE_ID])

    async def _carry(
        self, span: Span, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Call the app in an unrecorded trace, which outgoing requests still propagate."""
        context_token = context.attach(trace.set_span_in_context(span))
        try:
            await app(scope, receive, send)
        finally:
            context.detach(context_token)

    async def _record(
        self, span: Span, app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, route: str
    ) -> None:
        """Call the app in a span; name it at the end, because FastAPI matches the route inside."""

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                _record_response(span, message)
            await send(message)

        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        with self._ended(span), structlog.contextvars.bound_contextvars(trace_id=trace_id):
            try:
                await app(scope, receive, send_and_record)
            finally:
                span.set_attribute("http.request.method", _method(scope))
                if template := route or getattr(scope.get("route"), "path", ""):
                    span.set_attribute("http.route", template)
                    span.update_name(f"{_method(scope)} {template}")

    # -- work within a request, and work that follows from it ------------------------------------

    @property
    def is_recording(self) -> bool:
        """Whether the current work belongs to a recorded trace."""
        return trace.get_current_span().is_recording()

    @contextmanager
    def start_handover(self, name: str) -> Iterator[str]:
        """Create a span for handing work over; yield the `traceparent` to pass to `follow`."""
        with self._ended(self._tracer.start_span(name, kind=SpanKind.PRODUCER)) as span:
            yield _traceparent(span)

    @contextmanager
    def follow(self, name: str, traceparents: Iterable[str]) -> Iterator[None]:
        """Create a span in each of these traces, for work done for all of them at once."""
        current = trace.get_current_span().get_span_context()
        links = [Link(current)] if current.is_valid else []
        spans = [
            self._tracer.start_span(name, context=parent, kind=SpanKind.CONSUMER, links=links)
            for parent in map(_trace_of, islice(traceparents, MAX_FOLLOWED))
            if parent is not None
        ]
        try:
            yield
        except BaseException as error:
            for span in spans:
                self.fail(span, error)
            raise
        finally:
            for span in spans:
                span.end()

    def call(self, name: str, attributes: Mapping[str, str | int]) -> Span:
        """Return a span for a call to something outside this process; the caller ends it."""
        return self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    async def send_request(
        self, transport: httpx.AsyncBaseTransport, request: httpx.Request
    ) -> httpx.Response:
        """Send a request in a span, and propagate the span's id."""
        resource = request.url.path.split("/", 2)[1]  # the rest may be an id
        attributes: dict[str, str | int] = {
            "http.request.method": request.method,
            "server.address": request.url.host,
            "server.port": request.url.port or _PORTS[request.url.scheme],
        }
        with self._ended(self.call(f"{request.method} /{resource}", attributes)) as span:
            _propagator.inject(request.headers)
            response = await transport.handle_async_request(request)
            span.set_attribute("http.response.status_code", response.status_code)
            if response.is_error:
                span.set_status(StatusCode.ERROR)
            return response

    def fail(self, span: Span, error: BaseException | None) -> None:
        """Mark a span as failed, with the type of the error but not its message."""
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(StatusCode.ERROR)

    @contextmanager
    def _ended(self, span: Span) -> Iterator[Span]:
        """Make a span the current one and end it after the block."""
        context_token = context.attach(trace.set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            self.fail(span, error)
            raise
        finally:
            context.detach(context_token)
            span.end()


class _Ids(RandomIdGenerator):
    """Generates trace ids; the next trace gets `next` if it is set."""

    next = 0

    def generate_trace_id(self) -> int:
        preset, self.next = self.next, 0
        return preset or super().generate_trace_id()


class _TracedApp:
    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["path"] in UNLOGGED:
            return self._app(scope, receive, send)
        return self._tracing.answer(self._app, scope, receive, send)


class _TracedTransport(httpx.AsyncBaseTransport):
    def __init__(self, transport: httpx.AsyncBaseTransport, tracing: Tracing) -> None:
        self._transport = transport
        self._tracing = tracing

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._tracing.send_request(self._transport, request)

    async def aclose(self) -> None:
        await self._transport.aclose()


def _method(scope: Scope) -> str:
    """Return the request's method, or `_OTHER` for a non-standard one."""
    return scope["method"] if scope["method"] in METHODS else "_OTHER"


def _record_response(span: Span, start: Message) -> None:
    """Record the status and headers of a response in its span."""
    status = start["status"]
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
    for name, value in start["headers"]:
        if name in RECORDED_HEADERS:
            span.set_attribute(f"http.response.header.{name.decode()}", [value.decode("latin-1")])


def _callers_trace(headers: Iterable[tuple[bytes, bytes]]) -> Context | None:
    """Return the trace context in a request's headers, or None.

    `tracestate` is ignored, so that untrusted input is not passed on to other services.
    """
    for name, value in headers:
        if name == b"traceparent":
            return _trace_of(value.decode("latin-1"))
    return None


def _trace_of(traceparent: str) -> Context | None:
    """Return the trace context of a `traceparent`, or None if it is invalid."""
    if len(traceparent) > _MAX_TRACEPARENT_CHARS:
        return None
    parent = _propagator.extract({"traceparent": traceparent})
    return parent if trace.get_current_span(parent).get_span_context().is_valid else None


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    return carrier["traceparent"]
