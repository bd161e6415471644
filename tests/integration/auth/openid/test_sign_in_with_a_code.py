"""Sign in on the pages with a second factor, and to apps that are part of Tollgate."""

from collections.abc import AsyncIterator

import pyotp
import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import select

from services.auth.bootstrap import FIRST_PARTY_SCOPE
from services.auth.clients.credentials import ensure_first_party_client
from services.auth.sessions.models import BrowserSession
from services.auth.users import totp as totp_module
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADA,
    ADMIN,
    OWNER_SCOPE,
    PASSWORD,
    Headers,
    bearer,
    browse,
)
from tests.integration.auth.openid.signing_in import CALLBACK, TARGET, App, assert_safe_page
from tests.integration.auth.pages import Page

pytestmark = pytest.mark.any_database


class TestSecondFactor:
    """At a fixed time, which is the beginning of a step."""

    STEP = 60_000_000

    @pytest.fixture(autouse=True)
    def stopped_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(totp_module, "time", lambda: self.STEP * totp_module.STEP_S)

    @pytest.fixture
    async def totp(self, client: AsyncClient, as_ada: Headers) -> pyotp.TOTP:
        started = (await client.post("/users/me/totp", headers=as_ada)).json()
        generator = pyotp.TOTP(started["secret"])
        code = {"code": generator.generate_otp(self.STEP - 1)}
        confirmed = await client.post("/users/me/totp/confirm", json=code, headers=as_ada)
        assert confirmed.status_code == 204
        return generator

    async def test_after_the_password_a_page_asks_for_the_code(
        self, weather: App, totp: pyotp.TOTP
    ) -> None:
        asked = await weather.send(await weather.authorize(), email=ADA, password=PASSWORD)
        wrong = await weather.send(asked, totp="000000")
        consent = await weather.follow(await weather.send(wrong, totp=totp.generate_otp(self.STEP)))

        assert_safe_page(asked, targets=TARGET)
        assert_safe_page(wrong, targets=TARGET)
        assert PASSWORD not in asked.text
        assert (asked.status_code, wrong.status_code) == (200, 400)
        assert Page(consent).actions == ["/consent"]

    async def test_the_password_alone_signs_nobody_in(
        self, weather: App, totp: pyotp.TOTP, database: Database
    ) -> None:
        await weather.send(await weather.authorize(), email=ADA, password=PASSWORD)

        asked = await weather.authorize()
        silent = await weather.authorize(prompt="none")

        assert Page(asked).actions == ["/sign-in"]
        assert weather.read(silent)["error"] == "login_required"
        async with database.snapshot() as session:
            stored = (await session.scalars(select(BrowserSession))).one()
        assert 590 < (stored.expires_at - stored.created_at).total_seconds() < 610

    async def test_wrong_codes_lock_like_wrong_passwords(
        self, weather: App, totp: pyotp.TOTP
    ) -> None:
        asked = await weather.send(await weather.authorize(), email=ADA, password=PASSWORD)

        answers = [await weather.send(asked, totp=f"wrong {n}") for n in range(10)]
        locked = await weather.send(asked, totp=totp.generate_otp(self.STEP))

        assert {each.status_code for each in answers} == {400}
        assert locked.status_code == 429
        assert int(locked.headers["Retry-After"]) > 0

    async def test_a_code_is_good_once(self, weather: App, totp: pyotp.TOTP, app: FastAPI) -> None:
        code = totp.generate_otp(self.STEP)
        asked = await weather.send(await weather.authorize(), email=ADA, password=PASSWORD)
        await weather.send(asked, totp=code)
        other = App(weather.client_id, browse(app))
        again = await other.send(await other.authorize(), email=ADA, password=PASSWORD)

        replayed = await other.send(again, totp=code)

        assert replayed.status_code == 400
        await other.browser.aclose()

    async def test_sending_the_code_page_twice_goes_on(
        self, weather: App, totp: pyotp.TOTP
    ) -> None:
        asked = await weather.send(await weather.authorize(), email=ADA, password=PASSWORD)
        await weather.send(asked, totp=totp.generate_otp(self.STEP))
        shown = await weather.authorize()

        answer = await weather.browser.post(
            "/sign-in/code", data=Page(shown).fields | {"totp": totp.generate_otp(self.STEP)}
        )

        assert answer.headers["Location"].startswith("/authorize?")


class TestFirstPartyApps:
    @pytest.fixture
    async def console(self, app: FastAPI, database: Database) -> AsyncIterator[App]:
        async with database.transaction() as session:
            for _ in range(2):  # safe to repeat
                await ensure_first_party_client(
                    session,
                    client_id="console",
                    name="Console",
                    scope=FIRST_PARTY_SCOPE,
                    redirect_uris=[CALLBACK],
                    post_logout_redirect_uris=[],
                )
        async with browse(app) as browser:
            yield App("console", browser)

    async def test_they_need_no_consent_and_may_do_what_the_person_may(
        self, console: App, client: AsyncClient, ada: dict[str, str]
    ) -> None:
        answer = await console.sign_in(await console.authorize(scope=None))
        tokens = (await console.exchange(console.read(answer)["code"])).json()
        headers = bearer(tokens["access_token"])

        assert tokens["scope"] == OWNER_SCOPE
        assert (await client.get("/users/me", headers=headers)).status_code == 200
        assert (
            await client.post("/clients", json={"name": "x"}, headers=headers)
        ).status_code == 201
        assert (await client.get("/users", headers=headers)).status_code == 403

    async def test_administrators_get_their_scope_too(
        self, console: App, client: AsyncClient, as_admin: Headers
    ) -> None:
        shown = await console.authorize(scope="openid admin")
        answer = await console.sign_in(shown, email=ADMIN)
        tokens = (await console.exchange(console.read(answer)["code"])).json()

        assert tokens["scope"] == "openid admin"
        headers = bearer(tokens["access_token"])
        assert (await client.get("/users", headers=headers)).status_code == 200

    async def test_a_person_without_any_requested_scope_is_refused(
        self, console: App, ada: dict[str, str]
    ) -> None:
        answer = await console.sign_in(await console.authorize(scope="admin"))

        assert console.read(answer)["error"] == "invalid_scope"
