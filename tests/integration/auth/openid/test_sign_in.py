"""Sign in to an app: the pages, from its request to its tokens."""

import base64
import hashlib
from datetime import UTC, datetime

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import select

from services.auth.models import User
from services.auth.sessions.models import BrowserSession
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, ISSUER, PASSWORD, Headers, bearer, browse, count
from tests.integration.auth.openid.signing_in import (
    TARGET,
    App,
    assert_safe_page,
    register_app,
    wait_for_audit,
)
from tests.integration.auth.pages import Page

pytestmark = pytest.mark.any_database


class TestSigningIn:
    async def test_a_person_signs_in_consents_and_the_app_gets_tokens(
        self, weather: App, client: AsyncClient, ada: dict[str, str]
    ) -> None:
        asked = await weather.authorize()
        consent = await weather.sign_in(asked)
        allowed = await weather.send(consent, decision="allow")
        answer = await weather.exchange(weather.read(allowed)["code"])

        assert_safe_page(asked, targets=TARGET)
        assert_safe_page(consent, targets=TARGET)
        assert "Weather" in consent.text
        assert "Call models (" in consent.text
        assert answer.headers["Cache-Control"] == "no-store"
        tokens = answer.json()
        assert tokens["scope"] == "openid email profile predict"
        claims = jwt.get_unverified_claims(tokens["access_token"])
        assert (claims["sub"], claims["user_id"]) == (ada["id"], ada["id"])
        assert claims["client_id"] == weather.client_id
        assert claims["aud"] == "tollgate"
        info = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
        assert info.json() == {"sub": ada["id"], "email": ADA, "email_verified": False}

    async def test_the_id_token_is_for_the_app_and_belongs_to_the_request(
        self, weather: App, ada: dict[str, str]
    ) -> None:
        before = int(datetime.now(UTC).timestamp())

        tokens = await weather.get_tokens()

        header = jwt.get_unverified_header(tokens["id_token"])
        claims = jwt.get_unverified_claims(tokens["id_token"])
        digest = hashlib.sha256(tokens["access_token"].encode()).digest()
        half = base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
        assert (header["alg"], header["typ"]) == ("RS256", "JWT")
        assert (claims["iss"], claims["sub"]) == (ISSUER, ada["id"])
        assert (claims["aud"], claims["nonce"]) == (weather.client_id, "the nonce")
        assert claims["at_hash"] == half
        assert before - 1 <= claims["auth_time"] <= claims["iat"] < claims["exp"]

    async def test_an_id_token_is_no_access_token(self, weather: App, client: AsyncClient) -> None:
        tokens = await weather.get_tokens()

        answer = await client.get("/userinfo", headers=bearer(tokens["id_token"]))

        assert answer.status_code == 401

    async def test_without_openid_there_is_no_id_token_and_no_userinfo(
        self, weather: App, client: AsyncClient
    ) -> None:
        tokens = await weather.get_tokens(scope="predict", nonce=None)

        assert "id_token" not in tokens
        info = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
        assert info.status_code == 403
        assert 'scope="openid"' in info.headers["WWW-Authenticate"]

    async def test_userinfo_shows_what_the_person_allowed(
        self, weather: App, client: AsyncClient, as_ada: Headers, ada: dict[str, str]
    ) -> None:
        await client.patch("/users/me", json={"name": "Ada L"}, headers=as_ada)
        named = await weather.get_tokens(scope="openid profile")
        bare = await weather.get_tokens(scope="openid")

        shown = [
            (await client.request(method, "/userinfo", headers=bearer(each["access_token"]))).json()
            for method, each in (("GET", named), ("POST", bare))
        ]

        assert shown == [{"sub": ada["id"], "name": "Ada L"}, {"sub": ada["id"]}]

    async def test_an_app_may_do_only_what_its_scopes_say(
        self, weather: App, client: AsyncClient
    ) -> None:
        tokens = await weather.get_tokens()
        headers = bearer(tokens["access_token"])

        answers = [
            await client.get("/users/me", headers=headers),
            await client.delete("/users/me", headers=headers),
            await client.get("/clients", headers=headers),
            await client.post("/clients", json={"name": "heir"}, headers=headers),
            await client.get("/api-keys", headers=headers),
            await client.get("/users", headers=headers),
        ]

        assert {each.status_code for each in answers} == {403}

    async def test_consent_is_asked_once_for_the_same_scopes(self, weather: App) -> None:
        await weather.get_code()

        again = await weather.authorize(scope="openid")
        more = await weather.authorize(scope="openid usage:read")
        forced = await weather.authorize(scope="openid", prompt="consent")

        assert "code" in weather.read(again)
        assert Page(more).actions == Page(forced).actions == ["/consent"]

    async def test_denying_sends_the_app_an_error(self, weather: App) -> None:
        consent = await weather.sign_in(await weather.authorize())

        denied = await weather.send(consent, decision="deny")

        assert weather.read(denied)["error"] == "access_denied"
        assert Page(await weather.authorize()).actions == ["/consent"]

    async def test_a_wrong_password_is_shown_and_counted_like_a_sign_in(
        self, weather: App, app: FastAPI, database: Database
    ) -> None:
        shown = await weather.authorize()

        known = await weather.send(shown, email=ADA, password="wrong password")
        unknown = await weather.send(shown, email="nobody@example.com", password="wrong password")
        rest = [await weather.send(shown, email=ADA, password=f"wrong {n}") for n in range(9)]
        locked = await weather.send(shown, email=ADA, password=PASSWORD)

        assert known.status_code == unknown.status_code == 400
        assert known.text == unknown.text.replace("nobody@", "ada@")
        assert_safe_page(known, targets=TARGET)
        assert 'role="alert"' in known.text
        assert {each.status_code for each in rest} == {400}
        assert locked.status_code == 429
        assert int(locked.headers["Retry-After"]) > 0
        assert await count(database, BrowserSession) == 0
        await wait_for_audit(database, "login_failed")

    async def test_a_disabled_user_cannot_sign_in(self, weather: App, database: Database) -> None:
        async with database.transaction() as session:
            other = User(
                id="d" * 36, email="bob@x.io", password_hash="x", is_admin=False,
                created_at=datetime.now(UTC), disabled_at=datetime.now(UTC),
            )  # fmt: skip
            session.add(other)

        answer = await weather.send(
            await weather.authorize(), email="bob@x.io", password="whatever it is"
        )

        assert answer.status_code == 400
        assert "Incorrect e-mail address or password." in answer.text

    async def test_the_cookie_is_new_after_signing_in(
        self, weather: App, database: Database
    ) -> None:
        shown = await weather.authorize()
        planted = weather.browser.cookies["tollgate-auth"]
        await weather.sign_in(shown)

        signed_in = weather.browser.cookies["tollgate-auth"]
        weather.browser.cookies.clear()
        weather.browser.cookies.set("tollgate-auth", planted)
        with_planted = await weather.authorize()

        assert planted != signed_in
        assert Page(with_planted).actions == ["/sign-in"]
        async with database.snapshot() as session:
            stored = (await session.scalars(select(BrowserSession))).one()
        assert signed_in not in str(vars(stored))

    async def test_the_cookie_is_hidden_from_scripts_and_other_sites(self, weather: App) -> None:
        shown = await weather.authorize()

        attributes = shown.headers["Set-Cookie"].split("; ")[1:]

        assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=lax"]

    async def test_over_https_the_cookie_belongs_to_this_host_alone(
        self, app: FastAPI, weather: App, open_app: object
    ) -> None:
        async with (
            open_app(issuer="https://auth.test") as secure,  # type: ignore[operator]
            browse(secure) as browser,
        ):
            shown = await browser.get("/authorize", params=weather.parameters())

        assert shown.headers["Set-Cookie"].startswith("__Host-tollgate-auth=")
        assert "Secure" in shown.headers["Set-Cookie"].split("; ")

    async def test_a_login_hint_is_filled_in_and_escaped(self, weather: App) -> None:
        shown = await weather.authorize(login_hint='"><script>alert(1)</script>')

        assert_safe_page(shown, targets=TARGET)
        assert Page(shown).fields["email"] == '"><script>alert(1)</script>'

    async def test_a_hostile_name_of_an_app_is_escaped(
        self, client: AsyncClient, as_ada: Headers, app: FastAPI
    ) -> None:
        hostile = await register_app(client, as_ada, app, name="<script>alert(1)</script>")

        consent = await hostile.sign_in(await hostile.authorize())

        assert_safe_page(consent, targets=TARGET)

    async def test_parameters_may_be_sent_as_a_form(self, weather: App) -> None:
        answer = await weather.browser.post("/authorize", data=weather.parameters())

        assert Page(await weather.follow(answer)).actions == ["/sign-in"]
