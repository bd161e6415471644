"""The composition root of the console."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI, Request, Response

from services.common.errors import ServiceError
from services.common.http.addresses import Addresses
from services.common.http.app import service_app
from services.common.http.client import http_client
from services.console.admin.routers import ADMIN
from services.console.apis.calls import Api, ApiProblem, ApiUnavailable, TokenRejected
from services.console.billing.router import router as billing
from services.console.design.pages import show_problem
from services.console.design.router import router as design
from services.console.docs.router import router as docs
from services.console.keys.router import router as keys
from services.console.models.router import router as models
from services.console.organisation.router import router as organisation
from services.console.sessions.guards import SignInNeeded
from services.console.sessions.once import OnceForms
from services.console.sessions.sealing import Sealer
from services.console.sessions.secret import open_secret
from services.console.sessions.visitors import Cookies
from services.console.settings import ConsoleSettings
from services.console.sign_in.router import router as sign_in
from services.console.sign_in.sign_up import router as sign_up
from services.console.state import Apis
from services.console.usage.router import router as usage

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing

MAX_BODY_BYTES = 256 * 1024
API_TIMEOUT_S = 5.0

log = structlog.get_logger()


def create_app(settings: ConsoleSettings, *, tracing: "Tracing | None" = None) -> FastAPI:
    """Create the app; this reads the secret of its cookies, or creates it.

    Args:
        tracing: creates a span for each request; closed after the lifespan.

    Raises:
        SystemExit: the secret is unusable; one line on stderr says why.
    """
    sealer = Sealer(open_secret(settings))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with http_client(timeout_s=API_TIMEOUT_S, connections=100, tracing=tracing) as client:
            app.state.apis = Apis(
                auth=Api(client, "auth", settings.auth_address),
                inference=Api(client, "inference", settings.inference_address),
                billing=Api(client, "billing", settings.billing_address),
            )
            app.state.checks = {}
            yield

    def refuse(error: ServiceError, *, path: str, request_id: str) -> Response:
        return _refuse(error, form_target=settings.auth_url, request_id=request_id)

    app = service_app(
        title="Tollgate console",
        description="The pages on which people find, try, buy and pay for models.",
        token_url=None,
        addresses=Addresses(
            issuer=settings.auth_url,
            inference=settings.inference_url,
            billing=settings.billing_url,
            console=settings.url,
        ),
        lifespan=lifespan,
        max_body_bytes=MAX_BODY_BYTES,
        refuse=refuse,
        tracing=tracing,
    )
    app.state.settings = settings
    app.state.once = OnceForms()
    app.state.cookies = Cookies(sealer, secure=settings.is_secure)
    _show_api_errors(app, settings)
    for router in (
        *(models, keys, usage, billing, organisation),
        *ADMIN,
        *(sign_in, sign_up, design, docs),
    ):
        app.include_router(router)
    return app


def _refuse(error: ServiceError, *, form_target: str, request_id: str) -> Response:
    """Return the page for an error, or the redirect to the sign-in."""
    if isinstance(error, SignInNeeded):
        return Response(status_code=error.status, headers=error.headers)
    titles = {403: "Not allowed", 404: "Page not found"}
    title = titles.get(error.status, "Something went wrong")
    text = error.detail
    if error.status == 404:
        text = "This page does not exist, or you may not see it."
    response: Response = show_problem(
        title=title,
        text=text,
        status=error.status,
        form_target=form_target,
        request_id=request_id if error.status >= 500 else None,
    )
    response.headers.update(error.headers)
    return response


def _show_api_errors(app: FastAPI, settings: ConsoleSettings) -> None:
    """Show a page for what an API refuses, where a route does not do so itself."""

    def problem(title: str, text: str, status: int) -> Response:
        return show_problem(title=title, text=text, status=status, form_target=settings.auth_url)

    @app.exception_handler(ApiUnavailable)
    async def on_unavailable(request: Request, error: ApiUnavailable) -> Response:
        text = f"{error.name.capitalize()} is unavailable at the moment. Try again soon."
        response = problem("Temporarily unavailable", text, 503)
        response.headers["Retry-After"] = "5"
        return response

    @app.exception_handler(TokenRejected)
    async def on_rejected(request: Request, error: TokenRejected) -> Response:
        response = problem("Your session has ended", "Sign in again to go on.", 401)
        cookies: Cookies = app.state.cookies
        cookies.delete_session(response)
        return response

    @app.exception_handler(ApiProblem)
    async def on_problem(request: Request, error: ApiProblem) -> Response:
        if error.status == 404:
            return problem(
                "Page not found", "This page does not exist, or you may not see it.", 404
            )
        return problem("This did not work", error.detail, error.status)
