"""Sign in to an app for an organisation instead of the personal account."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from jose import jwt

from tests.integration.auth.conftest import ADA, PASSWORD, bearer
from tests.integration.auth.openid.signing_in import App, register_app
from tests.integration.auth.organisations.people import Person


@pytest.fixture
async def organisation(ada: Person, bob: Person) -> str:
    """The id of an organisation that Bob owns, and where Ada is a developer."""
    created = await bob.create_organisation()
    assert (await bob.put(created, ADA, "developer")).status_code == 200
    return created


@pytest.fixture
async def weather(client: AsyncClient, ada: Person, app: FastAPI) -> AsyncIterator[App]:
    """An app that may also manage members, and Ada's browser."""
    weather = await register_app(client, ada.headers, app, scope="predict members:write")
    async with weather.browser:
        yield weather


async def test_the_tokens_are_for_the_organisation_and_stay_so_when_refreshed(
    weather: App, ada: Person, organisation: str
) -> None:
    scope = "openid predict members:write"

    tokens = await weather.get_tokens(account=organisation, scope=scope)
    refreshed = await weather.refresh(tokens["refresh_token"])

    assert refreshed.status_code == 200
    for each in (tokens, refreshed.json()):
        assert each["scope"] == "openid predict"  # a developer manages no members
        claims = jwt.get_unverified_claims(each["access_token"])
        assert (claims["sub"], claims["user_id"]) == (organisation, ada.id)
    assert jwt.get_unverified_claims(tokens["id_token"])["sub"] == ada.id


async def test_consent_names_the_organisation_and_is_asked_each_time(
    weather: App, organisation: str
) -> None:
    await weather.get_tokens()

    again = await weather.authorize()
    for_it = [await weather.authorize(account=organisation) for _ in range(2)]
    allowed = await weather.send(for_it[1], decision="allow")
    afterwards = await weather.authorize(account=organisation)

    assert "code" in weather.read(again)
    assert "code" in weather.read(allowed)
    for page in (*for_it, afterwards):
        assert "for the organisation “Analytical Engines”" in page.text


async def test_someone_elses_account_is_refused(weather: App, bob: Person) -> None:
    asked = await weather.authorize(account=bob.id)

    answer = await weather.send(asked, email=ADA, password=PASSWORD)
    answer = await weather.follow(answer)

    assert weather.read(answer)["error"] == "access_denied"


async def test_a_removed_member_loses_codes_tokens_and_refresh_tokens(
    weather: App, client: AsyncClient, ada: Person, bob: Person, organisation: str
) -> None:
    tokens = await weather.get_tokens(account=organisation)
    personal = await weather.get_tokens()
    code = await weather.get_code(account=organisation)

    assert (await bob.remove(organisation, ada.id)).status_code == 204

    assert (await weather.exchange(code)).json()["error"] == "invalid_grant"
    assert (await weather.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    for document, status in ((tokens, 401), (personal, 200)):
        answer = await client.get("/userinfo", headers=bearer(document["access_token"]))
        assert answer.status_code == status
