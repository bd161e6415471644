"""Request ids, Prometheus metrics, traces and one log line for every request."""

import asyncio
import os
import re
import time
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.errors import STOPPING, Refuse, ServiceError, error_response
from services.common.settings import exit_with_error

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

UNLOGGED = frozenset({"/healthz", "/readyz", "/metrics"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods with their own metric label; all others count as `other`."""

_VALID_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

log = structlog.get_logger()


# -- metrics -------------------------------------------------------------------------------------


class Metrics:
    """The Prometheus registry of one app, with the request metrics of every service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "http_requests",
            "Completed requests by route template.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "Time from the first byte of a request's headers to the last byte of its response.",
            ["method", "route"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "http_requests_in_progress", "Requests in progress.", registry=self.registry
        )
        self.ready = Gauge(
            "service_ready",
            "Latest result of /readyz: 1 if ready; 0 if not ready or not checked yet.",
            registry=self.registry,
        )


# -- traces --------------------------------------------------------------------------------------


def open_tracing(service: str, *, endpoint: str | None) -> "Tracing | None":
    """Return the tracing of a service, or None; OpenTelemetry is only imported if needed.

    Args:
        endpoint: base URL of an OTLP/HTTP collector; None for no traces.

    Raises:
        SystemExit: the packages are not installed; one line on stderr says so.
    """
    if endpoint is None:
        return None
    try:
        from services.common.telemetry.tracing import Tracing
    except ImportError as error:
        exit_with_error(
            f"OTEL_EXPORTER_OTLP_ENDPOINT: install tollgate[otel] to send traces: {error}"
        )
    return Tracing(service, endpoint=endpoint)


# -- middleware around every request -------------------------------------------------------------


def request_id(scope: Scope) -> str:
    """Return the caller's `X-Request-ID` if it is valid, otherwise a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _VALID_ID.fullmatch(value):
            return str(value, "ascii")
    return os.urandom(16).hex()


class RequestMiddleware:
    """ASGI middleware: request id, metrics, one log line, and a 500 for unhandled exceptions."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, refuse: Refuse = error_response) -> None:
        self._app = app
        self._metrics = metrics
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rid = request_id(scope)
        scope.setdefault("state", {})["request_id"] = rid
        status = 0
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", rid.encode())]
            await send(message)

        self._metrics.in_progress.inc()
        with structlog.contextvars.bound_contextvars(request_id=rid):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                log.exception("request_failed", path=scope["path"], method=scope["method"])
                if status:
                    raise  # the response has started: only closing the connection signals failure
                response = self._refuse(ServiceError(), path=scope["path"], request_id=rid)
                await response(scope, receive, send_with_id)
            except asyncio.CancelledError:  # the stopping server has waited long enough
                log.error("request_aborted", path=scope["path"], method=scope["method"])
                if status:
                    raise
                response = self._refuse(STOPPING, path=scope["path"], request_id=rid)
                await response(scope, receive, send_with_id)
            finally:
                self._metrics.in_progress.dec()
                self._record(scope, status or 499, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        if scope["path"] not in UNLOGGED:
            log.info(
                "request_completed",
                method=scope["method"],
                path=scope["path"],
                route=route,
                status=status,
                ms=round(seconds * 1000, 2),
                client=(scope.get("client") or ("",))[0],
                user_agent=_header(scope, b"user-agent"),
            )


def _header(scope: Scope, wanted: bytes) -> str:
    return next((v.decode("latin-1") for name, v in scope["headers"] if name == wanted), "")
