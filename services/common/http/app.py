"""The FastAPI app with everything that the services have in common."""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.common.errors import (
    STOPPING,
    Observe,
    Refuse,
    error_response,
    install_error_handlers,
)
from services.common.http.addresses import Addresses, add_addresses
from services.common.http.docs import AmendOpenApi, add_docs
from services.common.http.methods import Cors, Methods
from services.common.identity.guards import public
from services.common.telemetry.metrics import Metrics
from services.common.telemetry.requests import RequestMiddleware

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

Check = Callable[[], Awaitable[str | None]]
"""A readiness check: returns None if it passes, otherwise one sentence."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any] | None]]
"""Opens the service's resources; may yield state for the HTTP protocol."""


def service_app(
    *,
    title: str,
    description: str,
    token_url: str | None,
    addresses: Addresses,
    lifespan: Lifespan,
    max_body_bytes: int,
    refuse: Refuse = error_response,
    observe: Observe | None = None,
    cors: Cors | None = None,
    accepts_api_keys: bool = False,
    amend_openapi: AmendOpenApi | None = None,
    tracing: "Tracing | None" = None,
) -> FastAPI:
    """Return a FastAPI app with everything that the services have in common.

    This includes problem+json errors, request ids, metrics, `/healthz`, `/readyz`, `/metrics`,
    `/.well-known/tollgate` and a docs page that works offline. The lifespan sets what dependencies
    need in `app.state`: `verifier` (TokenVerifier), `database` (Database) if there is one, and
    `checks`, the readiness checks by name.

    Args:
        token_url: where the docs page's Authorize button signs in; None for a service without an
            API, which gets no docs page.
        addresses: the public URLs of all services, which `/.well-known/tollgate` returns.
        max_body_bytes: a larger body gets 413.
        refuse: renders errors in another format.
        observe: called for each expected error, before the response.
        cors: which pages of other origins may call; default none.
        accepts_api_keys: whether the OpenAPI document offers them.
        amend_openapi: changes the OpenAPI document.
        tracing: creates a span for each request; closed after the lifespan.
    """

    @asynccontextmanager
    async def with_checks_cleared(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with lifespan(app) as state:
            yield state or {}
        app.state.checks = {}
        if tracing is not None:
            tracing.close()

    app = FastAPI(
        title=title,
        description=description,
        lifespan=with_checks_cleared,
        docs_url=None,
        redoc_url=None,
        openapi_url=None if token_url is None else "/openapi.json",
        # A redirect would make clients send their secrets again, to whatever host `Host` names.
        redirect_slashes=False,
    )
    app.state.metrics = Metrics()
    app.state.max_body_bytes = max_body_bytes
    install_error_handlers(app, refuse, observe)
    app.add_middleware(Methods, router=app.router)
    if cors is not None:
        app.add_middleware(cors.around, refuse=refuse)
    app.add_middleware(RequestMiddleware, metrics=app.state.metrics, refuse=refuse)
    if tracing is not None:
        app.add_middleware(tracing.around_app)
    _add_operations(app)
    add_addresses(app, addresses)
    if token_url is not None:
        add_docs(app, token_url=token_url, accepts_api_keys=accepts_api_keys, amend=amend_openapi)
    return app


def _add_operations(app: FastAPI) -> None:
    @app.get("/healthz", tags=["operations"])
    @public
    async def healthz() -> dict[str, str]:
        """Return 200 while the process is alive."""
        return {"status": "ok"}

    not_ready = {"description": "Failing checks.", "content": {"application/json": {}}}

    @app.get("/readyz", tags=["operations"], responses={503: not_ready})
    @public
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
    @public
    async def metrics() -> Response:
        """Return the metrics in Prometheus text format."""
        return Response(generate_latest(app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
