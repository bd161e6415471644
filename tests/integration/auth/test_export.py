"""What the export of a user's data says about signing in."""

from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.callers import FIRST_PARTY
from services.auth.providers.models import ProviderIdentity
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, Headers
from tests.integration.auth.openid.signing_in import CALLBACK, SIGNED_OUT, App, register_app
from tests.integration.auth.organisations.people import BOB, sign_up, signed_in


async def export(client: AsyncClient, headers: Headers) -> dict[str, Any]:
    answer = await client.get("/users/me/export", headers=headers)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def sign_in_to_app(client: AsyncClient, headers: Headers, app: FastAPI) -> App:
    """Register an app, sign in to it with a browser, and consent."""
    weather = await register_app(client, headers, app, scope="predict usage:read")
    async with weather.browser:
        await weather.get_tokens(scope="openid predict")
    return weather


async def test_clients_have_their_type_and_redirect_uris(
    client: AsyncClient, as_ada: Headers, app: FastAPI
) -> None:
    await client.post("/clients", json={"name": "job"}, headers=as_ada)
    weather = await register_app(client, as_ada, app)
    await weather.browser.aclose()

    job, public = (await export(client, as_ada))["clients"]

    assert (job["type"], job["redirect_uris"]) == ("confidential", [])
    assert (public["type"], public["redirect_uris"]) == ("public", [CALLBACK])
    assert public["post_logout_redirect_uris"] == [SIGNED_OUT]


async def test_sign_ins_name_their_client_and_account(
    client: AsyncClient, ada: dict[str, str], as_ada: Headers, app: FastAPI
) -> None:
    person = await signed_in(client, ADA)
    organisation = await person.create_organisation()
    await person.sign_in(organisation)
    weather = await sign_in_to_app(client, as_ada, app)

    sign_ins = (await export(client, as_ada))["log_ins"]

    assert {(each["client_id"], each["account"]) for each in sign_ins} == {
        (FIRST_PARTY, ada["id"]),
        (FIRST_PARTY, organisation),
        (weather.client_id, ada["id"]),
    }


async def test_consents_and_browser_sessions_are_listed(
    client: AsyncClient, as_ada: Headers, app: FastAPI
) -> None:
    weather = await sign_in_to_app(client, as_ada, app)

    document = await export(client, as_ada)

    [consent] = document["consents"]
    assert (consent["client_id"], consent["scope"]) == (weather.client_id, "openid predict")
    assert "created_at" in consent
    [session] = document["browser_sessions"]
    assert session["created_at"] < session["expires_at"]
    assert "sha256" not in str(document)


async def test_identities_at_providers_are_listed(
    client: AsyncClient, ada: dict[str, str], as_ada: Headers, database: Database
) -> None:
    issuer = "https://login.example.com"
    async with database.transaction() as session:
        session.add(
            ProviderIdentity(
                identity_sha256="0" * 64,
                user_id=ada["id"],
                issuer=issuer,
                subject="ada@work",
                created_at=datetime.now(UTC),
            )
        )

    [identity] = (await export(client, as_ada))["provider_identities"]

    assert (identity["issuer"], identity["subject"]) == (issuer, "ada@work")


async def test_other_peoples_data_is_not_in_it(
    client: AsyncClient, as_ada: Headers, app: FastAPI
) -> None:
    await sign_in_to_app(client, as_ada, app)
    bob = await sign_up(client, BOB)

    document = await export(client, bob.headers)

    lists = ("clients", "consents", "provider_identities", "browser_sessions")
    assert [document[each] for each in lists] == [[], [], [], []]
    assert len(document["log_ins"]) == 1
