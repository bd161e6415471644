"""OpenTelemetry traces of a service; imported only where they are asked for.

What a span says is chosen here: methods, route templates, status codes, the shape of statements,
and the ids that an answer's own headers carry. Paths and queries of callers, bodies, parameters and
the words of exceptions, which may repeat any of them, are left out. The names are OpenTelemetry's
semantic conventions; the headers are those of W3C Trace Context.
"""

from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from threading import Thread

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

from services.common.observe import METHODS, UNLOGGED

MAX_FOLLOWED = 500
"""Traces in which what is done at once has a span: each takes time of the event loop."""
FLUSH_S = 2.0
"""How long a stopping service waits for its last spans to be sent."""
TOLD_HEADERS = frozenset({b"x-request-id", b"x-model-name", b"x-model-version", b"x-usage-event"})
"""Headers of answers that a span repeats: what receipts and log lines are found by."""

_MAX_TRACEPARENT_CHARS = 128
_PORTS = {"http": 80, "https": 443}
_propagator = TraceContextTextMapPropagator()


class Tracing:
    """Owns the queue of finished spans, and the thread that sends them.

    The queue is bounded and nothing waits for it: while no collector answers, spans are lost. The
    SDK itself reads its standard variables, such as `OTEL_TRACES_SAMPLER`.

    Args:
        service: its name in the traces.
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
        # What a parent-based sampler asks where there is no parent: the same answer, sooner.
        self._sampler = getattr(self._provider.sampler, "_root", self._provider.sampler)

    def close(self) -> None:
        """Send what waits; what cannot be sent at once is lost."""
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(FLUSH_S)

    def around_app(self, app: ASGIApp) -> ASGIApp:
        """ASGI middleware: each request but an operator's probes in a span."""
        return _TracedApp(app, self)

    def around_client(self, transport: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        """Sends each request of a client in a span, whose id goes with it."""
        return _TracedTransport(transport, self)

    # -- requests --------------------------------------------------------------------------------

    def answer(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, route: str = ""
    ) -> Awaitable[None]:
        """Have an app answer a request, in a span that goes on with its caller's trace.

        A request without a span, as most are, costs no coroutine more than without tracing.

        Args:
            route: the request's template; default what FastAPI finds.
        """
        method, parent = _method(scope), _callers_trace(scope["headers"])
        if parent is None and not self._begins_trace(method):
            return app(scope, receive, send)
        span = self._tracer.start_span(method, context=parent, kind=SpanKind.SERVER)
        if span.is_recording():
            return self._record(span, app, scope, receive, send, route=route)
        return self._carry(span, app, scope, receive, send)

    def _begins_trace(self, method: str) -> bool:
        """Whether a request without a trace is to begin one.

        Most are not. To ask the sampler first, and then to begin the trace with the id that it was
        asked about, costs them half of what a span does that is not kept.
        """
        self._ids.next = trace_id = self._ids.generate_trace_id()
        judged = self._sampler.should_sample(None, trace_id, method, SpanKind.SERVER)
        if judged.decision is Decision.RECORD_AND_SAMPLE:
            return True
        self._ids.next = 0
        return False

    async def _carry(
        self, span: Span, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer in a trace that is not kept here, which those that are asked go on with."""
        entered = context.attach(trace.set_span_in_context(span))
        try:
            await app(scope, receive, send)
        finally:
            context.detach(entered)

    async def _record(
        self, span: Span, app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, route: str
    ) -> None:
        """Answer in a span, which learns its name last: FastAPI finds the route on the way."""

        async def send_and_tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                _tell_answer(span, message)
            await send(message)

        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        with self._ended(span), structlog.contextvars.bound_contextvars(trace_id=trace_id):
            try:
                await app(scope, receive, send_and_tell)
            finally:
                span.set_attribute("http.request.method", _method(scope))
                if found := route or getattr(scope.get("route"), "path", ""):
                    span.set_attribute("http.route", found)
                    span.update_name(f"{_method(scope)} {found}")

    # -- what a request is made of, and what follows from it -------------------------------------

    @property
    def is_recording(self) -> bool:
        """Whether what is being done belongs to a trace that is kept."""
        return trace.get_current_span().is_recording()

    @contextmanager
    def hand_on(self, name: str) -> Iterator[str]:
        """A span of leaving work to others; gives the `traceparent` that they `follow`."""
        with self._ended(self._tracer.start_span(name, kind=SpanKind.PRODUCER)) as span:
            yield _traceparent(span)

    @contextmanager
    def follow(self, name: str, traceparents: Iterable[str]) -> Iterator[None]:
        """A span in each of those traces, of what is done for all of them at once."""
        at_once = trace.get_current_span().get_span_context()
        links = [Link(at_once)] if at_once.is_valid else []
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
        """A span of asking something outside this process; whoever asks ends it."""
        return self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    async def ask(
        self, transport: httpx.AsyncBaseTransport, request: httpx.Request
    ) -> httpx.Response:
        """Have a transport send a request, in a span whose id goes with it."""
        kind = request.url.path.split("/", 2)[1]  # what follows may be an id
        attributes: dict[str, str | int] = {
            "http.request.method": request.method,
            "server.address": request.url.host,
            "server.port": request.url.port or _PORTS[request.url.scheme],
        }
        with self._ended(self.call(f"{request.method} /{kind}", attributes)) as span:
            _propagator.inject(request.headers)
            response = await transport.handle_async_request(request)
            span.set_attribute("http.response.status_code", response.status_code)
            if response.is_error:
                span.set_status(StatusCode.ERROR)
            return response

    def fail(self, span: Span, error: BaseException | None) -> None:
        """Mark a span as failed, by an error's kind and not by its words."""
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(StatusCode.ERROR)

    @contextmanager
    def _ended(self, span: Span) -> Iterator[Span]:
        """Make a span the current one, and end it with the block."""
        entered = context.attach(trace.set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            self.fail(span, error)
            raise
        finally:
            context.detach(entered)
            span.end()


class _Ids(RandomIdGenerator):
    """Gives a trace the id that has been chosen for it, if one has."""

    next = 0

    def generate_trace_id(self) -> int:
        chosen, self.next = self.next, 0
        return chosen or super().generate_trace_id()


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
        return await self._tracing.ask(self._transport, request)

    async def aclose(self) -> None:
        await self._transport.aclose()


def _method(scope: Scope) -> str:
    """A client may send any word."""
    return scope["method"] if scope["method"] in METHODS else "_OTHER"


def _tell_answer(span: Span, start: Message) -> None:
    status = start["status"]
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
    for name, value in start["headers"]:
        if name in TOLD_HEADERS:
            span.set_attribute(f"http.response.header.{name.decode()}", [value.decode("latin-1")])


def _callers_trace(headers: Iterable[tuple[bytes, bytes]]) -> Context | None:
    """The trace that a request's headers name; None for a new one.

    Its vendors' `tracestate` is not passed on: nothing a stranger writes goes from here to others.
    """
    for name, value in headers:
        if name == b"traceparent":
            return _trace_of(value.decode("latin-1"))
    return None


def _trace_of(traceparent: str) -> Context | None:
    """The trace and span that a `traceparent` names; None if it is none."""
    if len(traceparent) > _MAX_TRACEPARENT_CHARS:
        return None
    found = _propagator.extract({"traceparent": traceparent})
    return found if trace.get_current_span(found).get_span_context().is_valid else None


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    return carrier["traceparent"]
