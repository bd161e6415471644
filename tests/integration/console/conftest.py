"""The console with a real auth, and browsers without scripts, all in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr

from harness.clients import PLAIN
from harness.plans import LOCAL_PLAN
from services.auth.app import MIGRATIONS
from services.auth.app import create_app as create_auth
from services.auth.bootstrap import ensure_first_party_clients
from services.auth.settings import AuthSettings, FirstPartyClient
from services.billing.app import create_app as create_billing
from services.billing.database import MIGRATIONS as BILLING_MIGRATIONS
from services.billing.plans.schemas import PlanCreate
from services.billing.settings import BillingSettings
from services.common.db.database import Database
from services.common.db.migrations import migrate
from services.console.apis.calls import Api
from services.console.app import create_app as create_console
from services.console.settings import ConsoleSettings
from services.console.state import Apis
from tests.integration.auth.conftest import CHEAP_KIB, PATIENT_S

CONSOLE, AUTH = "https://console.test", "https://auth.test"
INFERENCE, BILLING = "https://inference.test", "https://billing.test"
EMAIL, PASSWORD = "ada@example.com", "correct horse battery"


@dataclass
class World:
    """The console and the services that it calls."""

    console: FastAPI
    services: dict[str, FastAPI]
    away: set[str]
    """Names of services that do not answer."""

    def browser(self) -> AsyncClient:
        """Return a new browser, which follows no redirect by itself."""
        return AsyncClient(
            mounts={
                CONSOLE: ASGITransport(self.console),
                **{
                    f"https://{name}.test": ASGITransport(app)
                    for name, app in self.services.items()
                },
            },
            base_url=CONSOLE,
            verify=PLAIN,
        )


class _Switchboard(httpx.AsyncBaseTransport):
    """Connects the console to the services, except those that are unavailable."""

    def __init__(self, services: dict[str, FastAPI], away: set[str]) -> None:
        self._services = services
        self._away = away

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        name = request.url.host.removesuffix(".test")
        if name in self._away or name not in self._services:
            raise httpx.ConnectError("away", request=request)
        return await ASGITransport(self._services[name]).handle_async_request(request)


def new_console(home: Path, services: dict[str, FastAPI], away: set[str]) -> FastAPI:
    """Return a console that reaches the services in this process."""
    app = create_console(
        ConsoleSettings(
            home=home, url=CONSOLE, auth_url=AUTH, inference_url=INFERENCE, billing_url=BILLING
        )
    )
    client = AsyncClient(transport=_Switchboard(services, away))
    app.state.apis = Apis(
        auth=Api(client, "auth", AUTH),
        inference=Api(client, "inference", INFERENCE),
        billing=Api(client, "billing", BILLING),
    )
    app.state.checks = {}
    return app


@pytest.fixture(scope="session")
async def running_auth(
    new_database_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FastAPI]:
    url = new_database_url("sqlite")
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    client = FirstPartyClient(
        client_id="console",
        redirect_uris=("https://console.test/sign-in/callback",),
        post_logout_redirect_uris=("https://console.test/",),
    )
    settings = AuthSettings(
        home=tmp_path_factory.mktemp("auth"),
        issuer=AUTH,
        database_url=SecretStr(url),
        first_party_clients=(client,),
    )
    app = create_auth(settings, password_memory_kib=CHEAP_KIB, database_deadline_s=PATIENT_S)
    async with app.router.lifespan_context(app):
        database: Database = app.state.database
        async with database.transaction() as session:
            await ensure_first_party_clients(session, settings)
        yield app


@pytest.fixture(scope="session")
async def running_billing(
    running_auth: FastAPI,
    new_database_url: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[FastAPI]:
    url = new_database_url("sqlite")
    await asyncio.to_thread(migrate, url, BILLING_MIGRATIONS)
    settings = BillingSettings(
        home=tmp_path_factory.mktemp("billing"),
        auth_url=AUTH,
        database_url=SecretStr(url),
        default_plan=PlanCreate.model_validate(LOCAL_PLAN),
    )
    app = create_billing(
        settings, keys=running_auth.state.issuer.keys, database_deadline_s=PATIENT_S
    )
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def world(running_auth: FastAPI, running_billing: FastAPI, tmp_path: Path) -> World:
    """The console, auth and billing; `INFERENCE` does not answer."""
    services = {"auth": running_auth, "billing": running_billing}
    away = set[str]()
    return World(new_console(tmp_path, services, away), services, away)


@pytest.fixture
async def browser(world: World) -> AsyncIterator[AsyncClient]:
    async with world.browser() as browser:
        yield browser
