"""What happens around every request: its id, metrics, one log line, and errors as 500."""

import asyncio
import re
import time
from collections.abc import Iterable
from random import getrandbits

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.errors import STOPPING, Refuse, ServiceError, error_response
from services.common.telemetry.metrics import Metrics

UNLOGGED = frozenset({"/healthz", "/readyz", "/metrics", "/revocations"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods with their own metric label; all others count as `other`."""

_VALID_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

log = structlog.get_logger()


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the caller's `X-Request-ID` if it is valid, otherwise a new one."""
    return given_request_id(headers) or new_request_id()


def given_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the caller's `X-Request-ID` if it is valid."""
    for name, value in headers:
        if name == b"x-request-id" and _VALID_ID.fullmatch(value):
            return str(value, "ascii")
    return None


def new_request_id() -> str:
    """Return a new request id."""
    return f"{getrandbits(128):032x}"


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
        rid = request_id(scope["headers"])
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


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
