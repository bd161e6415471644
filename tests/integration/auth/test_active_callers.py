"""Every endpoint of auth rejects a token as soon as its user or client is deleted or disabled."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import delete, update
from sqlalchemy.sql.dml import Delete, Update

from services.auth.models import Client, User
from services.common.db.database import Database
from tests.integration.auth.conftest import Headers, SignIn, bearer

pytestmark = pytest.mark.any_database

Change = Callable[[], Update | Delete]

ENDS_OF_USERS: dict[str, Change] = {
    "disabled": lambda: update(User).values(disabled_at=datetime.now(UTC)),
    "deleted": lambda: delete(User),
}
ENDS_OF_CLIENTS: dict[str, Change] = ENDS_OF_USERS | {
    "client deleted": lambda: delete(Client).where(Client.owner_id.is_not(None)),
    "client expired": lambda: (
        update(Client)
        .where(Client.owner_id.is_not(None))
        .values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    ),
}


VALID_BODIES = {"/clients": {"name": "heir"}, "/api-keys": {"name": "heir"}}


def guarded_routes(app: FastAPI) -> list[tuple[str, str]]:
    """Return the method and path of every operation that takes a user's token."""
    return sorted(
        (method.upper(), path.replace("{client_id}", "tgc_x").replace("{id}", "x"))
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
        if "security" in operation and path not in ("/revocations", "/rejections")
    )


@pytest.fixture
def machine(client: AsyncClient, as_ada: Headers) -> Callable[[], Awaitable[str]]:
    """`await machine()` returns an access token of one of Ada's clients."""

    async def token() -> str:
        body = {"name": "x", "scope": "predict keys:write members:write"}
        client_document = (await client.post("/clients", json=body, headers=as_ada)).json()
        answer = await client.post(
            "/token",
            data={"grant_type": "client_credentials"},
            auth=(client_document["client_id"], client_document["client_secret"]),
        )
        return str(answer.json()["access_token"])

    return token


async def assert_every_route_refuses(app: FastAPI, client: AsyncClient, token: str) -> None:
    routes = guarded_routes(app)
    assert len(routes) >= 9
    for method, path in routes:
        body = VALID_BODIES.get(path) if method == "POST" else None
        answer = await client.request(method, path, json=body, headers=bearer(token))
        assert (method, path, answer.status_code) == (method, path, 401)
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("end", ENDS_OF_USERS)
async def test_every_route_rejects_the_token_of_a_deleted_or_disabled_user(
    app: FastAPI,
    client: AsyncClient,
    as_ada: Headers,
    database: Database,
    sign_in: SignIn,
    end: str,
) -> None:
    token = (await sign_in()).json()["access_token"]
    async with database.transaction() as session:
        await session.execute(ENDS_OF_USERS[end]())

    await assert_every_route_refuses(app, client, token)


@pytest.mark.parametrize("end", ENDS_OF_CLIENTS)
async def test_every_route_rejects_the_token_of_a_deleted_or_expired_client(
    app: FastAPI,
    client: AsyncClient,
    machine: Callable[[], Awaitable[str]],
    database: Database,
    end: str,
) -> None:
    token = await machine()
    assert (await client.get("/userinfo", headers=bearer(token))).status_code == 200
    async with database.transaction() as session:
        await session.execute(ENDS_OF_CLIENTS[end]())

    await assert_every_route_refuses(app, client, token)


@pytest.mark.parametrize("end", ENDS_OF_CLIENTS)
async def test_the_token_of_a_deleted_or_expired_client_is_inactive(
    client: AsyncClient,
    machine: Callable[[], Awaitable[str]],
    inference: tuple[str, str],
    database: Database,
    end: str,
) -> None:
    token = await machine()
    before = await client.post("/introspect", data={"token": token}, auth=inference)
    async with database.transaction() as session:
        await session.execute(ENDS_OF_CLIENTS[end]())

    after = await client.post("/introspect", data={"token": token}, auth=inference)

    assert before.json()["active"] is True
    assert after.json() == {"active": False}


async def test_a_service_token_becomes_inactive_with_its_client(
    client: AsyncClient, inference: tuple[str, str], as_ada: Headers, database: Database
) -> None:
    grant = {"grant_type": "client_credentials"}
    token = (await client.post("/token", data=grant, auth=inference)).json()["access_token"]
    asker = (await client.post("/clients", json={"name": "x"}, headers=as_ada)).json()
    async with database.transaction() as session:
        await session.execute(
            update(Client).where(Client.owner_id.is_not(None)).values(owner_id=None)
        )
        await session.execute(delete(Client).where(Client.client_id == inference[0]))

    answer = await client.post(
        "/introspect", data={"token": token}, auth=(asker["client_id"], asker["client_secret"])
    )

    assert answer.json() == {"active": False}


@pytest.mark.parametrize("seconds_left", [60, 0])
async def test_a_token_is_active_until_it_expires(
    app: FastAPI,
    client: AsyncClient,
    machine: Callable[[], Awaitable[str]],
    inference: tuple[str, str],
    seconds_left: int,
) -> None:
    issued = jwt.get_unverified_claims(await machine())
    now = int(time.time())
    claims = issued | {"iat": now - 600, "exp": now + seconds_left}
    token = app.state.issuer.keys.sign(claims)

    introspected = await client.post("/introspect", data={"token": token}, auth=inference)
    own = await client.get("/userinfo", headers=bearer(token))

    assert introspected.json()["active"] is (seconds_left > 0)
    assert own.status_code == (200 if seconds_left else 401)
