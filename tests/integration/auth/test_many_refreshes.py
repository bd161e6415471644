"""An app that refreshes in a loop: its sign-in can be ended in one transaction nevertheless."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import select

from services.auth.models import FamilyToken, RefreshFamily
from services.common.db.database import Database
from tests.integration.auth.conftest import Headers, assert_refused, bearer, revoked
from tests.integration.auth.openid.signing_in import App, register_app

MAX = 100


@pytest.fixture
async def weather(client: AsyncClient, as_ada: Headers, app: FastAPI) -> AsyncIterator[App]:
    registered = await register_app(client, as_ada, app)
    async with registered.browser:
        yield registered


async def fill(database: Database, *, up_to: int = MAX, valid_s: int = 600) -> None:
    """Note access tokens of the sign-in as if the app had refreshed so often."""
    async with database.transaction() as session:
        family = (
            await session.scalars(select(RefreshFamily).where(RefreshFamily.client_id.is_not(None)))
        ).one()
        noted = len((await session.scalars(select(FamilyToken))).all())
        expires_at = datetime.now(UTC) + timedelta(seconds=valid_s)
        session.add_all(
            FamilyToken(token_id=str(uuid4()), family_id=family.id, expires_at=expires_at)
            for _ in range(up_to - noted)
        )


async def test_too_many_valid_access_tokens_stop_refreshes_until_one_expires(
    weather: App, client: AsyncClient, database: Database
) -> None:
    refresh_token = (await weather.get_tokens())["refresh_token"]
    await fill(database)

    refused = [await weather.refresh(refresh_token) for _ in range(2)]

    for answer in refused:
        assert_refused(answer, "too_many_refreshes", 429)
        assert 590 <= int(answer.headers["Retry-After"]) <= 600
    async with database.transaction() as session:
        soonest = select(FamilyToken).order_by(FamilyToken.expires_at).limit(1)
        (await session.scalars(soonest)).one().expires_at = datetime.now(UTC)
    assert (await weather.refresh(refresh_token)).status_code == 200  # it was not used up


async def test_the_last_token_below_the_limit_is_issued(weather: App, database: Database) -> None:
    refresh_token = (await weather.get_tokens())["refresh_token"]
    await fill(database, up_to=MAX - 1)

    last = await weather.refresh(refresh_token)

    assert last.status_code == 200
    refused = await weather.refresh(last.json()["refresh_token"])
    assert_refused(refused, "too_many_refreshes", 429)


async def test_reuse_is_detected_and_ends_the_sign_in_at_the_limit(
    weather: App, client: AsyncClient, database: Database
) -> None:
    tokens = await weather.get_tokens()
    stolen = (await weather.refresh(tokens["refresh_token"])).json()
    await fill(database)

    assert_refused(await weather.refresh(tokens["refresh_token"]), "invalid_grant")

    assert_refused(await weather.refresh(stolen["refresh_token"]), "invalid_grant")
    info = await client.get("/userinfo", headers=bearer(stolen["access_token"]))
    assert info.status_code == 401


async def test_a_sign_in_at_the_limit_can_be_revoked(
    weather: App, client: AsyncClient, database: Database
) -> None:
    tokens = await weather.get_tokens()
    await fill(database)

    answer = await client.post("/revoke", data={"token": tokens["refresh_token"]})

    assert answer.status_code == 200
    assert len(await revoked(database)) == MAX
    info = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
    assert info.status_code == 401


async def test_expired_tokens_are_neither_counted_nor_revoked(
    weather: App, client: AsyncClient, database: Database
) -> None:
    refresh_token = (await weather.get_tokens())["refresh_token"]
    await fill(database, up_to=2 * MAX, valid_s=0)

    refreshed = await weather.refresh(refresh_token)

    assert refreshed.status_code == 200
    await client.post("/revoke", data={"token": refreshed.json()["refresh_token"]})
    assert len(await revoked(database)) == 2
