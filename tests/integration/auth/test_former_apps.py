"""How an app that is no longer part of Tollgate loses its rights."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.bootstrap import ensure_first_party_clients
from services.auth.models import RefreshFamily
from services.auth.openid.models import AuthorizationCode
from services.auth.settings import AuthSettings, FirstPartyClient
from services.common.contracts import COMMAND_CLIENT
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    Headers,
    actions_on,
    assert_refused,
    bearer,
    browse,
    count,
    revoked,
)
from tests.integration.auth.openid.signing_in import CALLBACK, App, register_app

CONSOLE = FirstPartyClient(client_id="console", redirect_uris=(CALLBACK,))


async def list_apps(app: FastAPI, database: Database, *listed: FirstPartyClient) -> None:
    """Start with these apps in the settings."""
    own: AuthSettings = app.state.issuer.settings
    settings = own.model_copy(update={"first_party_clients": listed})
    async with database.transaction() as session:
        await ensure_first_party_clients(session, settings)


@pytest.fixture
async def console(app: FastAPI, database: Database, ada: dict[str, str]) -> AsyncIterator[App]:
    await list_apps(app, database, CONSOLE)
    async with browse(app) as browser:
        yield App("console", browser)


async def test_its_tokens_are_revoked_and_it_gets_no_new_ones(
    console: App, app: FastAPI, client: AsyncClient, database: Database, as_admin: Headers
) -> None:
    tokens = await console.get_tokens()

    for _ in range(2):
        await list_apps(app, database)

    own = await client.get("/users/me", headers=bearer(tokens["access_token"]))
    assert own.status_code == 401
    assert_refused(await console.refresh(tokens["refresh_token"]), "invalid_client", 401)
    assert (await console.authorize()).status_code == 400
    assert await revoked(database) == [("client", "console")]
    assert (await actions_on(client, as_admin, "console")).count("client_deleted") == 1


async def test_what_it_was_issued_does_not_return_when_it_is_listed_again(
    console: App, app: FastAPI, database: Database
) -> None:
    tokens, code = await console.get_tokens(), await console.get_code()

    await list_apps(app, database)
    await list_apps(app, database, CONSOLE)

    assert_refused(await console.refresh(tokens["refresh_token"]), "invalid_grant")
    assert_refused(await console.exchange(code), "invalid_grant")
    assert [await count(database, each) for each in (RefreshFamily, AuthorizationCode)] == [0, 0]


async def test_other_clients_stay(
    console: App,
    app: FastAPI,
    client: AsyncClient,
    database: Database,
    as_ada: Headers,
    inference: tuple[str, str],
) -> None:
    weather = await register_app(client, as_ada, app)
    tokens = await weather.get_tokens()

    await list_apps(app, database)

    assert await revoked(database) == [("client", "console")]
    assert (await weather.refresh(tokens["refresh_token"])).status_code == 200
    form = {"client_id": COMMAND_CLIENT}
    assert (await client.post("/device_authorization", data=form)).status_code == 200
    form = {"grant_type": "client_credentials"}
    assert (await client.post("/token", data=form, auth=inference)).status_code == 200
    await weather.browser.aclose()
