"""The session of a browser: when an app wants more than it, and when it ends."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import update

from services.auth.models import User
from services.auth.sessions.models import BrowserSession
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    NEW_PASSWORD,
    PASSWORD,
    Headers,
    assert_refused,
    bearer,
    browse,
)
from tests.integration.auth.openid.signing_in import App
from tests.integration.auth.pages import Page


@pytest.mark.any_database
class TestPromptsAndAge:
    async def test_without_a_prompt_a_stranger_is_an_error(self, weather: App) -> None:
        assert weather.read(await weather.authorize(prompt="none"))["error"] == "login_required"

        await weather.sign_in(await weather.authorize())

        answer = await weather.authorize(prompt="none")
        assert weather.read(answer)["error"] == "consent_required"
        await weather.get_code()
        assert "code" in weather.read(await weather.authorize(prompt="none"))

    @pytest.mark.parametrize("demand", [{"prompt": "login"}, {"max_age": "0"}])
    async def test_an_app_can_demand_a_fresh_sign_in(
        self, weather: App, database: Database, demand: dict[str, str | None]
    ) -> None:
        await weather.get_code()
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        async with database.transaction() as session:
            await session.execute(update(BrowserSession).values(authenticated_at=hour_ago))

        asked = await weather.authorize(**demand)
        answer = await weather.sign_in(asked)

        assert Page(asked).actions == ["/sign-in"]
        tokens = (await weather.exchange(weather.read(answer)["code"])).json()
        signed_in_at = jwt.get_unverified_claims(tokens["id_token"])["auth_time"]
        assert signed_in_at > hour_ago.timestamp() + 3000

    async def test_a_young_enough_sign_in_is_enough(self, weather: App) -> None:
        await weather.get_code()

        assert "code" in weather.read(await weather.authorize(max_age="3600"))

    async def test_a_hint_about_another_person_asks_them_to_sign_in(
        self, weather: App, client: AsyncClient, app: FastAPI, as_ada: Headers
    ) -> None:
        await client.post("/register", json={"email": "bob@x.io", "password": PASSWORD})
        theirs = App(weather.client_id, browse(app))
        consent = await theirs.sign_in(await theirs.authorize(), email="bob@x.io")
        allowed = await theirs.send(consent, decision="allow")
        hint = (await theirs.exchange(theirs.read(allowed)["code"])).json()["id_token"]
        await weather.get_code()

        asked = await weather.authorize(id_token_hint=hint)
        silent = await weather.authorize(id_token_hint=hint, prompt="none")
        forged = await weather.authorize(id_token_hint=f"{hint}x")

        assert Page(asked).actions == ["/sign-in"]
        assert weather.read(silent)["error"] == "login_required"
        assert weather.read(forged)["error"] == "invalid_request"
        await theirs.browser.aclose()


class TestEndsOfSessions:
    async def test_a_changed_password_signs_the_browser_out(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        code = await weather.get_code()

        changed = await client.post(
            "/users/me/password",
            json={"current": PASSWORD, "new": NEW_PASSWORD},
            headers=as_ada,
        )

        assert changed.status_code == 204
        assert Page(await weather.authorize()).actions == ["/sign-in"]
        assert_refused(await weather.exchange(code), "invalid_grant")

    async def test_right_after_a_changed_password_a_person_can_sign_in(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        await client.post(
            "/users/me/password",
            json={"current": PASSWORD, "new": NEW_PASSWORD},
            headers=as_ada,
        )

        consent = await weather.sign_in(await weather.authorize(), password=NEW_PASSWORD)
        allowed = await weather.send(consent, decision="allow")
        tokens = (await weather.exchange(weather.read(allowed)["code"])).json()

        answer = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
        assert answer.status_code == 200

    @pytest.mark.parametrize("end", ["disabled", "expired"])
    async def test_it_ends_with_its_user_and_its_time(
        self, weather: App, database: Database, end: str
    ) -> None:
        code = await weather.get_code()
        now = datetime.now(UTC)
        async with database.transaction() as session:
            if end == "disabled":
                await session.execute(update(User).values(disabled_at=now))
            else:
                await session.execute(update(BrowserSession).values(expires_at=now))

        asked = await weather.authorize()

        if end == "disabled":  # the user also owns the app
            assert asked.status_code == 400
            assert_refused(await weather.exchange(code), "invalid_client", 401)
        else:
            assert Page(asked).actions == ["/sign-in"]

    @pytest.mark.parametrize("cookie", ["", "x", "x" * 43, "é" * 43, "x" * 4000])
    async def test_an_invented_cookie_is_worthless(self, weather: App, cookie: str) -> None:
        headers = [(b"Cookie", f"tollgate-auth={cookie}".encode())]

        answer = await weather.browser.get(
            "/authorize", params=weather.parameters(), headers=headers
        )

        assert Page(answer).actions == ["/sign-in"]
