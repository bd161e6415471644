"""Every route of every service declares who may call it, and refuses everyone else."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from httpx import ASGITransport
from jose.backends.base import Key

from harness.every_service import create_every_app
from harness.logs import logging_as
from services.auth.roles import PERSONAL, ROLE_SCOPES, loses_scopes, scopes_of
from services.common.http.routing import list_guards, new_router
from services.common.identity.guards import SCOPES, is_public, public
from services.common.identity.tokens import TokenVerifier

SERVICES = ("auth", "inference", "billing", "console")
PARAMETERS = ("model", "version", "account", "journal", "id", "client_id", "user_id", "note")
"""Of paths."""
FILES = {"/openapi.json", "/docs/assets"}
"""What the framework itself serves: the document, and the files of its page."""
PUBLIC = {
    "auth": {
        "/register",
        "/register/page",
        "/password-reset",
        "/password-reset/confirm",
        "/password-reset/page",
        "/password-reset/request/page",
        "/verify-email",
        "/verify-email/page",
        "/invitations/accept",  # its page; the POST needs credentials
        "/invitations/accept/page",
        "/authorize",
        "/sign-in",
        "/sign-in/code",
        "/sign-in/with/{provider}",
        "/sign-in/callback/{provider}",
        "/consent",
        "/device",
        "/device/confirm",
        "/device_authorization",
        "/logout",
        "/logout/confirm",
        "/token",
        "/revoke",
        "/introspect",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/.well-known/jwks.json",
    },
    "inference": {
        "/v1/catalogue",
        "/v1/models/{model:name}/card",
        "/v1/models/{model:name}/openapi.json",
        "/v2/health/live",
        "/v2/health/ready",
    },
    "billing": {"/plans", "/.well-known/jwks.json"},
    "console": {
        "/",
        "/assets/{name}",
        "/models/{model}",  # its page; the POST needs a session
        "/models/{model}/rows",  # leads back to that page; the POST needs a session
        "/design",
        "/docs",
        "/docs/{path:path}",
        "/sign-in",
        "/sign-in/callback",
        "/sign-out",
        "/sign-up",
    },
}
"""What needs no credentials, besides the operations that every service has."""
OPERATIONS = {"/healthz", "/readyz", "/metrics", "/.well-known/tollgate"}
DOCS = {"/docs"}
REFUSED = {"console": 303}
"""The status without valid credentials, if it is not 401: the console redirects to its sign-in."""


class NoKeys:
    async def find(self, kid: str) -> Key | None:
        return None


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FastAPI]:
    apps = create_every_app(tmp_path_factory.mktemp("services"))
    for app in apps.values():
        app.state.verifier = TokenVerifier(NoKeys(), issuer="http://auth")
    return apps


def list_undeclared(app: FastAPI) -> list[str]:
    """Return the paths of the routes that declare neither a scope nor that they are public."""
    return [str(route.path) for route in iter_route_contexts(app.routes) if not _declares(route)]


def _declares(route: RouteContext) -> bool:
    if not isinstance(route.original_route, APIRoute):
        return route.path in FILES
    return _is_public(route) or bool(list_guards(route.dependant))


def _is_public(route: RouteContext) -> bool:
    return route.endpoint is not None and is_public(route.endpoint)


def guarded(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield the method and path of every route that needs credentials."""
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and not _is_public(route):
            path = str(route.path_format)
            for name in PARAMETERS:
                path = path.replace(f"{{{name}}}", "x")
            assert "{" not in path
            for method in route.methods or ():
                yield method, path


@pytest.mark.parametrize("service", SERVICES)
def test_every_route_declares_a_scope_or_that_it_is_public(
    apps: dict[str, FastAPI], service: str
) -> None:
    assert list_undeclared(apps[service]) == []


@pytest.mark.parametrize("service", SERVICES)
def test_only_the_intended_routes_are_public(apps: dict[str, FastAPI], service: str) -> None:
    found = {
        route.path
        for route in iter_route_contexts(apps[service].routes)
        if isinstance(route.original_route, APIRoute) and _is_public(route)
    }

    docs = DOCS if service != "console" else set()
    assert found == PUBLIC[service] | OPERATIONS | docs


def test_a_route_without_a_declaration_is_found() -> None:
    app, router = FastAPI(openapi_url=None, docs_url=None, redoc_url=None), new_router(tag="x")

    @router.get("/forgotten")
    async def forgotten() -> None: ...

    @router.get("/open")
    @public
    async def open_() -> None: ...

    app.include_router(router)

    assert list_undeclared(app) == ["/forgotten"]


@pytest.mark.parametrize("service", SERVICES)
async def test_every_other_route_refuses_a_request_without_valid_credentials(
    apps: dict[str, FastAPI], service: str
) -> None:
    calls = sorted(guarded(apps[service]))
    wrong = [{}, {"Authorization": "Bearer x"}, {"X-API-Key": "tg_live_x"}]
    transport = ASGITransport(apps[service])

    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answers = [
            (method, path, (await client.request(method, path, headers=headers)).status_code)
            for method, path in calls
            for headers in wrong
        ]

    assert calls
    assert [answer for answer in answers if answer[2] != REFUSED.get(service, 401)] == []


@pytest.mark.parametrize("service", SERVICES)
async def test_no_route_reads_the_body_of_a_request_without_valid_credentials(
    apps: dict[str, FastAPI], service: str
) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(True)
        yield b"{" * 10_000_000

    calls = [(method, path) for method, path in guarded(apps[service]) if method != "GET"]
    transport = ASGITransport(apps[service])

    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        statuses = {
            (await client.request(method, path, content=body(), headers=headers)).status_code
            for method, path in sorted(calls)
            for headers in ({}, {"Authorization": "Bearer x"})
        }

    assert statuses == {REFUSED.get(service, 401)}
    assert read == []


@pytest.mark.parametrize("service", SERVICES)
async def test_no_secret_of_a_refused_request_appears_anywhere(
    apps: dict[str, FastAPI], service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    canaries = ["canary-token", "tg_live_canary", "canary-password", "canary-query"]
    sent: list[dict[str, Any]] = [
        {"headers": {"Authorization": f"Bearer {canaries[0]}"}},
        {"headers": {"X-API-Key": canaries[1]}},
        {"auth": ("someone", canaries[2])},
        {"params": {"access_token": canaries[3]}},
    ]
    transport = ASGITransport(apps[service])

    with logging_as("test"):
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            answers = [
                await client.request(method, path, **each)
                for method, path in sorted(guarded(apps[service]))
                for each in sent
            ]
            metrics = await client.get("/metrics")
    for answer in answers:
        answer.headers.pop("Location", None)  # a page's own address, to return to
    seen = [*(f"{each.headers}{each.text}" for each in answers), metrics.text]
    logged = capsys.readouterr().err

    assert "request_completed" in logged
    assert not [canary for canary in canaries for text in (*seen, logged) if canary in text]


@pytest.mark.parametrize("service", SERVICES)
def test_every_required_scope_exists(apps: dict[str, FastAPI], service: str) -> None:
    required = {
        guard.scope
        for route in iter_route_contexts(apps[service].routes)
        if isinstance(route.original_route, APIRoute)
        for guard in list_guards(route.dependant)
    }

    assert required <= {None, *SCOPES}


class TestRoles:
    def test_the_table_grants_what_the_contract_states(self) -> None:
        everything = ("predict", "usage:read", "keys:write", "billing:manage", "members:write")

        assert {
            "owner": everything,
            "admin": everything,
            "developer": ("predict", "usage:read", "keys:write"),
            "billing": ("usage:read", "billing:manage"),
            "viewer": ("usage:read",),
        } == ROLE_SCOPES

    def test_no_role_grants_the_scopes_of_services_and_administrators(self) -> None:
        granted = {scope for scopes in ROLE_SCOPES.values() for scope in scopes}

        assert set(SCOPES) - granted == {"billing:write", "admin"}
        assert scopes_of(PERSONAL, is_admin=True).split() == [*ROLE_SCOPES["owner"], "admin"]

    def test_a_role_is_lower_than_another_if_it_lacks_one_of_its_scopes(self) -> None:
        lower = {(old, new) for old in ROLE_SCOPES for new in ROLE_SCOPES if loses_scopes(old, new)}

        assert lower == {
            *((high, low) for high in ("owner", "admin") for low in ("developer", "billing")),
            *((high, "viewer") for high in ("owner", "admin", "developer", "billing")),
            ("developer", "billing"),
            ("billing", "developer"),
        }
