"""Sign out at the request of an app."""

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.sessions.models import BrowserSession
from services.common.db.database import Database
from tests.integration.auth.conftest import PASSWORD, Headers, browse, count
from tests.integration.auth.openid.signing_in import SIGNED_OUT, App, assert_safe_page, register_app
from tests.integration.auth.pages import Page

pytestmark = pytest.mark.any_database


async def test_with_a_hint_a_person_is_signed_out_and_sent_back(
    weather: App, database: Database
) -> None:
    hint = (await weather.get_tokens())["id_token"]
    before = weather.browser.cookies["tollgate-auth"]

    answer = await weather.browser.get(
        "/logout",
        params={"id_token_hint": hint, "post_logout_redirect_uri": SIGNED_OUT, "state": "s t"},
    )

    assert (answer.status_code, answer.headers["Location"]) == (303, f"{SIGNED_OUT}?state=s+t")
    assert weather.browser.cookies["tollgate-auth"] != before
    assert await count(database, BrowserSession) == 0
    assert Page(await weather.authorize()).actions == ["/sign-in"]


async def test_a_loopback_address_to_return_to_may_have_any_port(
    client: AsyncClient, as_ada: Headers, app: FastAPI
) -> None:
    registered = ["http://127.0.0.1/"]
    local = await register_app(client, as_ada, app, post_logout_redirect_uris=registered)
    hint = (await local.get_tokens())["id_token"]

    answers = [
        await local.browser.get(
            "/logout", params={"id_token_hint": hint, "post_logout_redirect_uri": uri}
        )
        for uri in ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/other", "http://evil/")
    ]

    assert [answer.status_code for answer in answers] == [303, 400, 400]
    assert answers[0].headers["Location"] == "http://127.0.0.1:8000/"
    await local.browser.aclose()


async def test_without_a_redirect_uri_a_page_says_so(weather: App) -> None:
    hint = (await weather.get_tokens())["id_token"]

    posted = await weather.browser.post("/logout", data={"id_token_hint": hint})
    answer = await weather.follow(posted)

    assert answer.status_code == 200
    assert_safe_page(answer)
    assert "You are signed out." in answer.text


async def test_without_a_hint_a_page_asks_first(weather: App, database: Database) -> None:
    await weather.get_code()

    asked = await weather.browser.get("/logout")
    still = await count(database, BrowserSession)
    done = await weather.send(asked, decision="yes")

    assert_safe_page(asked)
    assert_safe_page(done)
    assert still == 1
    assert await count(database, BrowserSession) == 0


async def test_a_hint_about_another_person_asks_first(
    weather: App, client: AsyncClient, app: FastAPI, database: Database
) -> None:
    hint = (await weather.get_tokens())["id_token"]
    await client.post("/register", json={"email": "bob@x.io", "password": PASSWORD})
    theirs = App(weather.client_id, browse(app))
    await theirs.sign_in(await theirs.authorize(), email="bob@x.io")

    asked = await theirs.browser.get("/logout", params={"id_token_hint": hint})

    assert Page(asked).actions == ["/logout/confirm"]
    assert await count(database, BrowserSession) == 2
    await theirs.browser.aclose()


async def test_a_person_who_is_not_signed_in_is_signed_out(weather: App) -> None:
    answer = await weather.browser.get("/logout")

    assert answer.status_code == 200
    assert "You are signed out." in answer.text


@pytest.mark.parametrize(
    "changes",
    [
        {"post_logout_redirect_uri": "https://evil.example.com/"},
        {"post_logout_redirect_uri": f"{SIGNED_OUT}/"},
        {"post_logout_redirect_uri": f"{SIGNED_OUT}?x=1"},
        {"id_token_hint": ""},
        {"id_token_hint": "x"},
        {"id_token_hint": "é.é.é"},
        {"id_token_hint": "a" * 9000},
        {"client_id": "tgc_another"},
    ],
)
async def test_a_mistake_is_shown_and_leads_nowhere(
    weather: App, database: Database, changes: dict[str, str]
) -> None:
    hint = (await weather.get_tokens())["id_token"]
    valid = {"id_token_hint": hint, "post_logout_redirect_uri": SIGNED_OUT}

    answer = await weather.browser.get("/logout", params=valid | changes)

    assert answer.status_code == 400
    assert_safe_page(answer)
    assert await count(database, BrowserSession) == 1


async def test_an_access_token_is_no_hint(weather: App) -> None:
    token = (await weather.get_tokens())["access_token"]

    answer = await weather.browser.get("/logout", params={"id_token_hint": token})

    assert answer.status_code == 400


async def test_a_repeated_parameter_is_a_mistake(weather: App) -> None:
    answer = await weather.browser.get("/logout?state=1&state=2")

    assert answer.status_code == 400


async def test_an_expired_hint_still_counts(
    weather: App, app: FastAPI, ada: dict[str, str]
) -> None:
    await weather.get_code()
    claims = {"iss": "http://auth.test", "sub": ada["id"], "aud": weather.client_id, "exp": 1}
    hint = app.state.issuer.keys.sign(claims, token_type="JWT")

    answer = await weather.browser.get(
        "/logout", params={"id_token_hint": hint, "post_logout_redirect_uri": SIGNED_OUT}
    )

    assert answer.headers["Location"] == SIGNED_OUT
