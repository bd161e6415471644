"""The auth app on a migrated MySQL or SQLite database, which each test gets empty."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr

from harness.databases import empty_tables
from services.auth.app import MIGRATIONS, create_app
from services.auth.clients.credentials import ensure_service_client
from services.auth.models import Base
from services.auth.settings import AuthSettings
from services.common.db.database import Database
from services.common.db.migrations import migrate

PATIENT_S = 60
"""The deadline of the database: on a busy machine, a crowd of requests takes long."""
PASSWORD = "correct horse battery"
ISSUER = "http://auth.test"
OWNER_SCOPE = "predict usage:read keys:write billing:manage members:write"
"""The scopes of all users in their own accounts."""
CHEAP_KIB = 64
"""Makes a password cost 0.2 ms instead of 30 ms, in the hundreds of log-ins of these tests."""

OpenApp = Callable[..., AbstractAsyncContextManager[FastAPI]]
LogIn = Callable[..., Awaitable[httpx.Response]]
Headers = dict[str, str]


@pytest.fixture(scope="session")
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder per worker, so that only one signing key is created."""
    return tmp_path_factory.mktemp("auth")


@pytest.fixture(scope="session")
async def database_url(database_kind: str, new_database_url: Callable[[str], str]) -> str:
    url = new_database_url(database_kind)
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    return url


@pytest.fixture(scope="session")
def open_app(database_url: str, state_folder: Path) -> OpenApp:
    """`async with open_app(login_attempts=3) as app` runs the app with such settings."""

    @asynccontextmanager
    async def open_(
        *, password_memory_kib: int = CHEAP_KIB, **settings: Any
    ) -> AsyncIterator[FastAPI]:
        values: dict[str, Any] = {"home": state_folder, "issuer": ISSUER, **settings}
        app = create_app(
            AuthSettings(database_url=SecretStr(database_url), **values),
            password_memory_kib=password_memory_kib,
            database_deadline_s=PATIENT_S,
        )
        async with app.router.lifespan_context(app):
            yield app

    return open_


@pytest.fixture(scope="session")
async def running_app(open_app: OpenApp) -> AsyncIterator[FastAPI]:
    async with open_app() as app:
        yield app


@pytest.fixture
async def app(running_app: FastAPI) -> FastAPI:
    """The running app, on empty tables."""
    database: Database = running_app.state.database
    running_app.state.failures.clear()
    await empty_tables(database, Base.metadata)
    return running_app


@pytest.fixture
def database(app: FastAPI) -> Database:
    database: Database = app.state.database
    return database


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with browse(app) as client:
        yield client


def browse(app: FastAPI, *, address: str = "127.0.0.1") -> AsyncClient:
    """Return a client of the app with an IP address."""
    return AsyncClient(transport=ASGITransport(app=app, client=(address, 1)), base_url=ISSUER)


@pytest.fixture
async def ada(client: AsyncClient) -> dict[str, str]:
    """A registered user, as returned by `/register`."""
    answer = await client.post("/register", json={"email": "ada@example.com", "password": PASSWORD})
    assert answer.status_code == 201
    account: dict[str, str] = answer.json()
    return account


@pytest.fixture
def log_in(client: AsyncClient) -> LogIn:
    """`await log_in(password=…)` requests a token, by default for Ada."""

    async def log_in_(
        username: str = "ada@example.com", password: str = PASSWORD, **more: str
    ) -> httpx.Response:
        form = {"grant_type": "password", "username": username, "password": password, **more}
        return await client.post("/token", data=form)

    return log_in_


@pytest.fixture
async def as_ada(ada: dict[str, str], log_in: LogIn) -> Headers:
    """The headers of a request by Ada."""
    return bearer((await log_in()).json()["access_token"])


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def inference(database: Database) -> tuple[str, str]:
    """The inference service's id and secret."""
    credentials = ("inference", "a secret with 256 random bits")
    async with database.transaction() as session:
        await ensure_service_client(
            session,
            client_id=credentials[0],
            client_secret=credentials[1],
            scope="billing:write",
        )
    return credentials


def assert_refused(answer: httpx.Response, error: str, status: int = 400) -> None:
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) == {"error", "error_description"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    allowed = set(map(chr, range(0x20, 0x7F))) - {'"', "\\"}
    assert set(answer.json()["error_description"]) <= allowed
