"""The auth app on a migrated MySQL or SQLite database, which each test gets empty."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr
from sqlalchemy import func, select, update

from harness.databases import empty_tables
from harness.waiting import eventually_async
from services.auth.app import MIGRATIONS, create_app
from services.auth.clients.credentials import ensure_service_client
from services.auth.models import Base, Revocation, User
from services.auth.settings import AuthSettings
from services.auth.users.service import ensure_user
from services.common.db.database import Database
from services.common.db.migrations import migrate
from services.common.telemetry.tracing import Tracing

PATIENT_S = 60
"""The deadline of the database: on a busy machine, a crowd of requests takes long."""
ADA = "ada@example.com"
ADMIN = "root@example.com"
PASSWORD = "correct horse battery"
NEW_PASSWORD = "another long password"
ISSUER = "http://auth.test"
OWNER_SCOPE = "predict usage:read keys:write billing:manage members:write"
"""The scopes of all users in their own accounts."""
KEPT = ("encryption_keys", "signing_keys")
"""Tables of what the running app has in memory."""
CHEAP_KIB = 64
"""Makes a password cost 0.2 ms instead of 30 ms, in the hundreds of sign-ins of these tests."""

OpenApp = Callable[..., AbstractAsyncContextManager[FastAPI]]
SignIn = Callable[..., Awaitable[httpx.Response]]
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
        *,
        password_memory_kib: int = CHEAP_KIB,
        tracing: Tracing | None = None,
        **settings: Any,
    ) -> AsyncIterator[FastAPI]:
        values: dict[str, Any] = {"home": state_folder, "issuer": ISSUER, **settings}
        app = create_app(
            AuthSettings(database_url=SecretStr(database_url), **values),
            tracing=tracing,
            password_memory_kib=password_memory_kib,
            database_deadline_s=PATIENT_S,
        )
        async with app.router.lifespan_context(app):
            app.state.mail_folder = values["home"] / "mail"
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
    await empty_tables(database, Base.metadata, keep=KEPT)
    for mail in mails_in(running_app):  # the last of them may have been sent just now
        mail.unlink()
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
def sign_in(client: AsyncClient) -> SignIn:
    """`await sign_in(password=…)` requests a token, by default for Ada."""

    async def sign_in_(
        username: str = "ada@example.com", password: str = PASSWORD, **more: str
    ) -> httpx.Response:
        form = {"grant_type": "password", "username": username, "password": password, **more}
        return await client.post("/token", data=form)

    return sign_in_


@pytest.fixture
async def as_ada(ada: dict[str, str], sign_in: SignIn) -> Headers:
    """The headers of a request by Ada."""
    return bearer((await sign_in()).json()["access_token"])


def mails_in(app: FastAPI) -> list[Path]:
    """Return the files of the mail that the app has sent, oldest first."""
    return sorted(app.state.mail_folder.glob("*.eml"))


async def next_mail(app: FastAPI, *, to: str, subject: str) -> EmailMessage:
    """Wait until the app has sent a mail like this; return the newest one, and forget all."""

    def matching() -> list[EmailMessage]:
        read = [message_from_bytes(each.read_bytes(), policy=default) for each in mails_in(app)]
        return [each for each in read if each["To"] == to and subject in each["Subject"]]

    await eventually_async(lambda: bool(matching()))
    newest = matching()[-1]
    for each in mails_in(app):
        each.unlink()
    return newest


def token_in(message: EmailMessage) -> str:
    """Return the token of the link in a mail."""
    body = message.get_body(("plain",))
    assert body is not None
    [token] = re.findall(r"\?token=(\S+)", body.get_content())
    return str(token)


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def as_admin(app: FastAPI, database: Database, sign_in: SignIn) -> Headers:
    """The headers of a request by an administrator."""
    async with database.transaction() as session:
        await ensure_user(
            session, hasher=app.state.hasher, email=ADMIN, password=PASSWORD, admin=True
        )
    return bearer((await sign_in(ADMIN)).json()["access_token"])


async def count(database: Database, model: type[Base]) -> int:
    """Return the number of rows of a table."""
    async with database.snapshot() as session:
        return await session.scalar(select(func.count()).select_from(model)) or 0


async def confirm_addresses(database: Database) -> None:
    """Let every user have a confirmed e-mail address."""
    async with database.transaction() as session:
        await session.execute(update(User).values(email_verified_at=User.created_at))


async def revoked(database: Database) -> list[tuple[str, str]]:
    """Return the kinds and ids of what was revoked, in order."""
    in_order = select(Revocation).order_by(Revocation.sequence)
    async with database.snapshot() as session:
        return [(each.kind, each.target_id) for each in await session.scalars(in_order)]


async def read_audit(client: AsyncClient, as_admin: Headers, **parameters: Any) -> dict[str, Any]:
    """Return a page of the audit log."""
    answer = await client.get("/audit", headers=as_admin, params=parameters)
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


async def actions_on(client: AsyncClient, as_admin: Headers, target: str) -> list[str]:
    """Return what the audit log says was done to a target, newest first."""
    entries = (await read_audit(client, as_admin))["entries"]
    return [each["action"] for each in entries if each["target"] == target]


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
