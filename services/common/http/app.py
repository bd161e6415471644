"""The HTTP server that every service runs, and the HTTP client for calling other services."""

import asyncio
import gc
import os
import socket
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import httpx
import orjson
import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.common.errors import (
    STOPPING,
    DuplicateMember,
    Refuse,
    UnreadableJson,
    error_response,
    install_error_handlers,
    malformed_json,
)
from services.common.http import strict_json
from services.common.http.docs import AmendOpenApi, add_docs
from services.common.http.methods import Cors, Methods
from services.common.http.protocol import Protocol
from services.common.identity.tokens import RequireScope
from services.common.settings import exit_with_error
from services.common.shutdown import FINISH_S, LAST_CALL_S, StoppingServer, leave
from services.common.telemetry.requests import Metrics, RequestMiddleware

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

Check = Callable[[], Awaitable[str | None]]
"""A readiness check: returns None if it passes, otherwise one sentence."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


# -- server --------------------------------------------------------------------------------------


class _Body(Request):
    """A request with a bounded body, which reports invalid JSON only after all other checks.

    Compressed bodies are rejected: no service decompresses untrusted input.
    """

    async def stream(self) -> AsyncGenerator[bytes, None]:
        if self.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "Content-Encoding is not supported.")
        limit, received = self.app.state.max_body_bytes, 0
        if int(self.headers.get("content-length", 0)) > limit:
            raise HTTPException(413, "The body is too large.")
        async for chunk in super().stream():
            received += len(chunk)
            if received > limit:
                raise HTTPException(413, "The body is too large.")
            yield chunk

    async def json(self) -> Any:
        body = await self.body()
        try:
            return strict_json.loads(body)
        except orjson.JSONDecodeError:
            return UnreadableJson(malformed_json())
        except strict_json.DuplicateMemberError:
            return UnreadableJson(DuplicateMember())


class _GuardedRoute(APIRoute):
    """A route that checks the bearer token before it reads the body.

    FastAPI reads and parses a body before it resolves dependencies, but an anonymous megabyte of
    bad JSON must be a cheap 401.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        guards = list(_guards(self.dependant))

        async def guarded(request: Request) -> Response:
            for guard in guards:
                await guard(request)
            return await handle(_Body(request.scope, request.receive))

        return guarded


def new_router(*, prefix: str = "", tag: str) -> APIRouter:
    """Return a router whose routes check the token before reading the body."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=_GuardedRoute)


def _guards(dependant: Dependant) -> list[RequireScope]:
    found = [dependant.call] if isinstance(dependant.call, RequireScope) else []
    return found + [guard for inner in dependant.dependencies for guard in _guards(inner)]


def service_app(
    *,
    title: str,
    description: str,
    token_url: str,
    lifespan: Lifespan,
    max_body_bytes: int,
    refuse: Refuse = error_response,
    cors: Cors | None = None,
    amend_openapi: AmendOpenApi | None = None,
    tracing: "Tracing | None" = None,
) -> FastAPI:
    """Return a FastAPI app with everything that the services have in common.

    This includes problem+json errors, request ids, metrics, `/healthz`, `/readyz`, `/metrics` and
    a docs page that works offline. The lifespan sets what dependencies need in `app.state`:
    `verifier` (TokenVerifier), `database` (Database) if there is one, and `checks`, the readiness
    checks by name.

    Args:
        token_url: where the docs page's Authorize button logs in.
        max_body_bytes: a larger body gets 413.
        refuse: renders errors in another format.
        cors: which pages of other origins may call; default none.
        amend_openapi: changes the OpenAPI document.
        tracing: creates a span for each request; closed after the lifespan.
    """

    @asynccontextmanager
    async def ready_only_inside(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app):
            yield
        app.state.checks = {}
        if tracing is not None:
            tracing.close()

    app = FastAPI(
        title=title,
        description=description,
        lifespan=ready_only_inside,
        docs_url=None,
        redoc_url=None,
        # A redirect would make clients send their secrets again, to whatever host `Host` names.
        redirect_slashes=False,
    )
    app.state.metrics = Metrics()
    app.state.max_body_bytes = max_body_bytes
    install_error_handlers(app, refuse)
    app.add_middleware(Methods, router=app.router)
    if cors is not None:
        app.add_middleware(cors.around)
    app.add_middleware(RequestMiddleware, metrics=app.state.metrics, refuse=refuse)
    if tracing is not None:
        app.add_middleware(tracing.around_app)
    _add_operations(app)
    add_docs(app, token_url=token_url, amend=amend_openapi)
    return app


def _add_operations(app: FastAPI) -> None:
    @app.get("/healthz", tags=["operations"])
    async def healthz() -> dict[str, str]:
        """Return 200 while the process is alive."""
        return {"status": "ok"}

    failing = {"description": "Failing checks.", "content": {"application/json": {}}}

    @app.get("/readyz", tags=["operations"], responses={503: failing})
    async def readyz(request: Request) -> Response:
        """Return 200 if the service is ready, otherwise 503 with the failing checks by name."""
        checks: Mapping[str, Check] = app.state.checks
        reasons = await asyncio.gather(*(check() for check in checks.values()))
        failing = {name: reason for name, reason in zip(checks, reasons, strict=True) if reason}
        if getattr(request.state, "stopping", False):
            failing["stopping"] = STOPPING.detail
        app.state.metrics.ready.set(not failing)
        status = "unavailable" if failing else "ok"
        return Response(
            orjson.dumps({"status": status, "failing": failing}),
            status_code=503 if failing else 200,
            media_type="application/json",
            headers={"Retry-After": "1"} if failing else None,
        )

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Return the metrics in Prometheus text format."""
        return Response(generate_latest(app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def listen(host: str, port: int, *, variable: str) -> socket.socket:
    """Bind a service's listening socket.

    Raises:
        SystemExit: the port is in use or not allowed; one line names the variable.
    """
    try:
        listener = socket.create_server((host, port), backlog=2048)
        # Connections inherit this; asyncio only sets it on sockets it created itself. Without it,
        # the second write of a response waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        exit_with_error(
            f"{variable}: cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}"
        )


def serve(
    app: Any,
    listener: socket.socket,
    *,
    trusted_proxies: Sequence[str] = (),
    loop: Literal["asyncio", "uvloop"] = "asyncio",
) -> None:
    """Run an ASGI app on a bound socket until SIGINT or SIGTERM, then finish running requests.

    Args:
        trusted_proxies: addresses and networks whose `X-Forwarded-For` and `X-Forwarded-Proto`
            determine the client's address and scheme.
        loop: services that use SQL need `asyncio`, because aiomysql cannot reconnect on uvloop.
    """
    config = uvicorn.Config(
        app,
        loop=loop,
        http=Protocol,
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(FINISH_S - LAST_CALL_S),
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        log_config=None,
    )
    # All objects created so far are permanent; scanning them in every full garbage collection
    # would delay requests by about 50 ms.
    gc.freeze()
    StoppingServer(config).run(sockets=[listener])
    leave()


# -- client --------------------------------------------------------------------------------------


def http_client(
    *, timeout_s: float = 10.0, connections: int = 20, tracing: "Tracing | None" = None
) -> httpx.AsyncClient:
    """Return a bounded client for the other services, without environment proxies or redirects.

    Shield its calls from cancellation (`asyncio.shield(client.get(...))`): httpx 0.28 leaks a
    connection for every call that is cancelled while connecting.
    """
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout_s, connect=2.0),
        transport=tracing.around_client(transport) if tracing else transport,
        trust_env=False,
        follow_redirects=False,
    )
