"""What ends the tokens of apps, and what apps and narrow tokens may not do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import update

import services.auth.openid.devices as devices_module
import services.auth.openid.service as openid_module
from services.auth.models import User
from services.auth.openid.devices import DEVICE_GRANT
from services.auth.users.repository import lock_user
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    NEW_PASSWORD,
    PASSWORD,
    Headers,
    assert_refused,
    bearer,
    revoked,
)
from tests.integration.auth.openid.signing_in import App, register_app
from tests.integration.auth.organisations.people import BOB, Person, sign_up
from tests.integration.auth.pages import Page


@pytest.fixture
async def bob(client: AsyncClient) -> Person:
    return await sign_up(client, BOB)


@pytest.fixture
async def weather(
    client: AsyncClient, ada: dict[str, str], bob: Person, app: FastAPI
) -> AsyncIterator[App]:
    """Bob's app, which Ada signs in to."""
    scope = "predict usage:read keys:write"
    registered = await register_app(client, bob.headers, app, scope=scope)
    async with registered.browser:
        yield registered


async def approve_device(weather: App, client: AsyncClient) -> str:
    """Start a device of the app, and approve it as Ada; return its code."""
    form = {"client_id": weather.client_id}
    started = (await client.post("/device_authorization", data=form)).json()
    shown = await weather.browser.get(started["verification_uri_complete"])
    if "/sign-in" in Page(shown).actions:
        shown = await weather.sign_in(shown)
    await weather.send(await weather.send(shown), decision="allow")
    return str(started["device_code"])


async def poll(weather: App, client: AsyncClient, device_code: str) -> httpx.Response:
    form = {"grant_type": DEVICE_GRANT, "client_id": weather.client_id}
    return await client.post("/token", data=form | {"device_code": device_code})


class TestExchanges:
    @pytest.mark.costly
    @pytest.mark.parametrize("kind", ["code", "device"])
    async def test_a_new_password_during_an_exchange_ends_what_it_issues(
        self,
        weather: App,
        client: AsyncClient,
        as_ada: Headers,
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
    ) -> None:
        code = await weather.get_code()
        device_code = await approve_device(weather, client)
        module: Any = openid_module if kind == "code" else devices_module
        changing: list[asyncio.Task[httpx.Response]] = []

        async def change_first(*arguments: Any, **options: Any) -> Any:
            body = {"current": PASSWORD, "new": NEW_PASSWORD}
            change = client.post("/users/me/password", json=body, headers=as_ada)
            changing.append(asyncio.create_task(change))
            await asyncio.wait(changing, timeout=1)  # it may have to wait for the exchange
            return await find_account(*arguments, **options)

        find_account: Callable[..., Awaitable[Any]] = module.find_account
        monkeypatch.setattr(module, "find_account", change_first)
        if kind == "code":
            answer = await weather.exchange(code)
        else:
            answer = await poll(weather, client, device_code)
        monkeypatch.setattr(module, "find_account", find_account)

        assert (await changing[0]).status_code == 204
        if answer.status_code == 200:
            tokens = answer.json()
            assert_refused(await weather.refresh(tokens["refresh_token"]), "invalid_grant")
            seen = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
            assert seen.status_code == 401


class TestOwners:
    @pytest.mark.parametrize("end", ["disabled", "deleted"])
    async def test_an_app_ends_with_its_owner_in_every_service(
        self,
        weather: App,
        client: AsyncClient,
        bob: Person,
        as_admin: Headers,
        database: Database,
        end: str,
    ) -> None:
        tokens = await weather.get_tokens()

        if end == "disabled":
            path = f"/users/{bob.id}"
            await client.patch(path, json={"disabled": True}, headers=as_admin)
        else:
            await client.delete("/users/me", headers=bob.headers)

        assert ("client", weather.client_id) in await revoked(database)
        seen = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
        assert seen.status_code == 401
        assert_refused(await weather.refresh(tokens["refresh_token"]), "invalid_client", 401)
        form = {"client_id": weather.client_id}
        started = await client.post("/device_authorization", data=form)
        assert_refused(started, "invalid_client", 401)

    async def test_people_sign_in_to_an_organisations_app(
        self, client: AsyncClient, ada: dict[str, str], bob: Person, app: FastAPI
    ) -> None:
        organisation = await bob.create_organisation()
        theirs = await register_app(client, await bob.acting_for(organisation), app)

        async with theirs.browser:
            tokens = await theirs.get_tokens()

        assert jwt.get_unverified_claims(tokens["access_token"])["user_id"] == ada["id"]


class TestLimits:
    async def test_an_app_manages_no_api_keys(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        key = (await client.post("/api-keys", json={"name": "x"}, headers=as_ada)).json()
        tokens = await weather.get_tokens(scope="keys:write")
        headers = bearer(tokens["access_token"])

        answers = [
            await client.post("/api-keys", json={"name": "heir"}, headers=headers),
            await client.post(f"/api-keys/{key['id']}/rotate", json={}, headers=headers),
            await client.delete(f"/api-keys/{key['id']}", headers=headers),
        ]

        assert [each.status_code for each in answers] == [403, 403, 403]
        assert {each.json()["type"] for each in answers} == {"urn:tollgate:problem:login_needed"}

    async def test_an_app_does_not_administer(
        self, client: AsyncClient, as_admin: Headers, database: Database, app: FastAPI, bob: Person
    ) -> None:
        theirs = await register_app(client, as_admin, app, scope="admin predict")
        async with database.transaction() as session:
            await session.execute(update(User).where(User.id == bob.id).values(is_admin=True))
        async with theirs.browser:
            shown = await theirs.sign_in(await theirs.authorize(scope="openid admin"), email=BOB)
            allowed = await theirs.send(shown, decision="allow")
            tokens = (await theirs.exchange(theirs.read(allowed)["code"])).json()
        headers = bearer(tokens["access_token"])

        answers = [
            await client.get("/users", headers=headers),
            await client.get("/audit", headers=headers),
            await client.patch(f"/users/{bob.id}", json={"disabled": True}, headers=headers),
            await client.post("/users/invite", json={"email": "e@example.com"}, headers=headers),
        ]

        assert tokens["scope"] == "openid admin"
        assert [each.status_code for each in answers] == [403] * 4

    async def test_a_narrow_token_creates_no_broader_client(
        self, client: AsyncClient, bob: Person
    ) -> None:
        organisation = await bob.create_organisation()
        narrow = await bob.acting_for(organisation, scope="keys:write predict")
        body = {"name": "job", "scope": "predict members:write"}

        refused = await client.post("/clients", json=body, headers=narrow)
        created = await client.post(
            "/clients", json={"name": "job", "scope": "predict"}, headers=narrow
        )

        assert (refused.status_code, created.status_code) == (422, 201)


async def test_a_locked_user_is_as_stored_now(database: Database, ada: dict[str, str]) -> None:
    async with database.transaction() as session:
        before = await session.get(User, ada["id"])
        unseen = update(User).execution_options(synchronize_session=False)
        await session.execute(unseen.values(name="Ada L"))

        locked = await lock_user(session, user_id=ada["id"])

    assert before is locked
    assert locked is not None
    assert locked.name == "Ada L"
