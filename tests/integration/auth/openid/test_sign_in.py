"""Sign in to an app: the authorization endpoint, its pages, and the codes."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import select, update

from services.auth.models import (
    AuthorizationCode,
    BrowserSession,
    FamilyToken,
    RefreshFamily,
    User,
)
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADA,
    ISSUER,
    NEW_PASSWORD,
    PASSWORD,
    Headers,
    assert_refused,
    bearer,
    browse,
    count,
    revoked,
)
from tests.integration.auth.openid.signing_in import (
    CALLBACK,
    App,
    Page,
    assert_safe_page,
    register_app,
    wait_for_audit,
)

TARGET = " https://app.example.com"


@pytest.fixture
async def weather(client: AsyncClient, as_ada: Headers, app: FastAPI) -> AsyncIterator[App]:
    registered = await register_app(client, as_ada, app)
    async with registered.browser:
        yield registered


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
        assert "Call models." in consent.text
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

    async def test_a_wrong_password_is_shown_and_counted_like_a_log_in(
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
        assert "Incorrect e-mail or password." in answer.text

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
            assert_refused(await weather.exchange(code), "invalid_grant")
        else:
            assert Page(asked).actions == ["/sign-in"]

    @pytest.mark.parametrize("cookie", ["", "x", "x" * 43, "é" * 43, "x" * 4000])
    async def test_an_invented_cookie_is_worthless(self, weather: App, cookie: str) -> None:
        headers = [(b"Cookie", f"tollgate-auth={cookie}".encode())]

        answer = await weather.browser.get(
            "/authorize", params=weather.parameters(), headers=headers
        )

        assert Page(answer).actions == ["/sign-in"]


@pytest.mark.any_database
class TestRequestsThatArePages:
    """The client or its redirect URI is wrong: nothing may be sent there."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"client_id": None},
            {"client_id": "tgc_unknown"},
            {"client_id": "tollgate-web"},
            {"client_id": "é"},
            {"client_id": "x" * 5000},
            {"redirect_uri": None},
            {"redirect_uri": "https://evil.example.com/callback"},
            {"redirect_uri": f"{CALLBACK}/"},
            {"redirect_uri": f"{CALLBACK}?x=1"},
            {"redirect_uri": f"{CALLBACK}#x"},
            {"redirect_uri": "https://app.example.com/callback@evil.example.com"},
            {"redirect_uri": "javascript:alert(1)"},
            {"redirect_uri": "//evil.example.com"},
            {"redirect_uri": "https://app.example.com/callback\r\nX: y"},
        ],
    )
    async def test_the_person_sees_an_error_and_is_not_redirected(
        self, weather: App, app: FastAPI, database: Database, changes: dict[str, str | None]
    ) -> None:
        answer = await weather.authorize(**changes)

        assert answer.status_code == 400
        assert_safe_page(answer)
        await wait_for_audit(database, "authorization_rejected")

    @pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
    async def test_a_repeated_client_or_redirect_uri_is_an_error(
        self, weather: App, name: str
    ) -> None:
        valid = weather.parameters()

        answer = await weather.browser.get(f"/authorize?{urlencode([*valid.items(), (name, 'x')])}")

        assert answer.status_code == 400
        assert_safe_page(answer)

    @pytest.mark.parametrize("query", ["", "%ff", "client_id=%ff", "&" * 100, "a=1&" * 50, "é"])
    async def test_a_malformed_query_is_an_error(self, weather: App, query: str) -> None:
        answer = await weather.browser.get(f"/authorize?{query}")
        posted = await weather.browser.post("/authorize", content=query.encode())

        assert answer.status_code == 400
        assert_safe_page(answer)
        assert (await weather.follow(posted)).status_code == 400

    async def test_raw_bytes_in_the_query_are_an_error(self, app: FastAPI) -> None:
        sent = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "GET", "path": "/authorize", "root_path": "", "headers": [],
            "query_string": b"client_id=\xff\xfe", "scheme": "http", "client": ("127.0.0.1", 1),
            "server": ("auth.test", 80), "http_version": "1.1",
        }  # fmt: skip
        await app(scope, receive, send)  # type: ignore[arg-type]

        assert sent[0]["status"] == 400

    async def test_a_machine_client_is_none(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        machine = await client.post("/clients", json={"name": "job"}, headers=as_ada)

        answer = await weather.authorize(client_id=machine.json()["client_id"])

        assert answer.status_code == 400

    async def test_a_deleted_app_is_unknown(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        code = await weather.get_code()

        await client.delete(f"/clients/{weather.client_id}", headers=as_ada)

        assert (await weather.authorize()).status_code == 400
        assert_refused(await weather.exchange(code), "invalid_client", 401)


@pytest.mark.any_database
class TestRequestsThatTheClientGetsBack:
    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"response_type": None}, "invalid_request"),
            ({"response_type": "token"}, "unsupported_response_type"),
            ({"response_type": "code id_token"}, "unsupported_response_type"),
            ({"response_mode": "fragment"}, "invalid_request"),
            ({"code_challenge": None}, "invalid_request"),
            ({"code_challenge": "short"}, "invalid_request"),
            ({"code_challenge": "é" * 43}, "invalid_request"),
            ({"code_challenge_method": None}, "invalid_request"),
            ({"code_challenge_method": "plain"}, "invalid_request"),
            ({"scope": "unknown"}, "invalid_scope"),
            ({"scope": "openid admin"}, "invalid_scope"),
            ({"scope": "openid billing:write"}, "invalid_scope"),
            ({"nonce": "x" * 256}, "invalid_request"),
            ({"nonce": "\0"}, "invalid_request"),
            ({"prompt": "maybe"}, "invalid_request"),
            ({"prompt": "none login"}, "invalid_request"),
            ({"max_age": "-1"}, "invalid_request"),
            ({"max_age": "soon"}, "invalid_request"),
            ({"max_age": "9" * 30}, "invalid_request"),
            ({"request": "x"}, "request_not_supported"),
            ({"request_uri": "https://x"}, "request_uri_not_supported"),
            ({"registration": "{}"}, "registration_not_supported"),
        ],
    )
    async def test_an_invalid_request_is_the_standards_error(
        self,
        weather: App,
        app: FastAPI,
        database: Database,
        changes: dict[str, str | None],
        error: str,
    ) -> None:
        answer = await weather.authorize(**changes)

        got = weather.read(answer)
        assert got["error"] == error
        assert set(got) == {"error", "error_description"}
        await wait_for_audit(database, "authorization_refused", weather.client_id)

    async def test_a_repeated_parameter_is_an_error(self, weather: App) -> None:
        query = urlencode([*weather.parameters().items(), ("nonce", "another")])

        answer = await weather.browser.get(f"/authorize?{query}")

        assert weather.read(answer)["error"] == "invalid_request"

    async def test_a_malformed_state_is_not_sent_back(self, weather: App) -> None:
        answer = await weather.authorize(state="a\r\nb")

        assert "state" not in answer.headers["Location"].split("error_description")[0]
        assert "error=invalid_request" in answer.headers["Location"]
        assert "%0D" not in answer.headers["Location"]

    async def test_another_account_is_refused(self, weather: App) -> None:
        await weather.get_code()

        answer = await weather.authorize(account="another")

        assert weather.read(answer)["error"] == "access_denied"

    async def test_unknown_scopes_are_ignored(self, weather: App) -> None:
        tokens = await weather.get_tokens(scope="openid phone offline_access")

        assert tokens["scope"] == "openid"


@pytest.mark.any_database
class TestForms:
    @pytest.mark.parametrize("path", ["/sign-in", "/sign-in/code", "/consent", "/logout/confirm"])
    @pytest.mark.parametrize("csrf", [None, "", "x", "é", "x" * 43])
    async def test_a_form_without_its_csrf_token_is_refused(
        self, weather: App, app: FastAPI, database: Database, path: str, csrf: str | None
    ) -> None:
        await weather.sign_in(await weather.authorize())
        fields = {"continue": f"/authorize?{urlencode(weather.parameters())}", "decision": "allow"}
        sent = fields if csrf is None else fields | {"csrf": csrf}

        answer = await weather.browser.post(
            path, data=sent | {"email": ADA, "password": PASSWORD, "totp": "1"}
        )

        assert answer.status_code == 403
        assert_safe_page(answer)
        await wait_for_audit(database, "csrf_rejected", path)
        assert await count(database, AuthorizationCode) == 0

    async def test_a_form_shown_to_another_browser_is_refused(
        self, weather: App, app: FastAPI
    ) -> None:
        async with browse(app) as other:
            shown = await other.get("/authorize", params=weather.parameters())
        await weather.authorize()

        answer = await weather.send(shown, email=ADA, password=PASSWORD)

        assert answer.status_code == 403

    async def test_without_cookies_a_form_is_refused(self, weather: App) -> None:
        shown = await weather.authorize()
        weather.browser.cookies.clear()

        answer = await weather.send(shown, email=ADA, password=PASSWORD)

        assert answer.status_code == 403
        assert Page(answer).links[0].startswith("/authorize?")

    async def test_a_consent_form_from_before_the_sign_in_is_refused(self, weather: App) -> None:
        shown = await weather.authorize()
        consent = await weather.sign_in(shown)
        old = Page(shown).fields["csrf"]

        answer = await weather.send(consent, csrf=old, decision="allow")

        assert answer.status_code == 403

    @pytest.mark.parametrize(
        "goal",
        [
            "",
            "https://evil.example.com/",
            "//evil.example.com/",
            "/\\evil.example.com",
            "/authorize/../x",
            "/authorize@evil.example.com",
            "/logout",
            "javascript:alert(1)",
            "/authorize?a=%ff",
        ],
    )
    async def test_a_form_cannot_lead_elsewhere(self, weather: App, goal: str) -> None:
        shown = await weather.authorize()
        form = Page(shown).fields | {"continue": goal, "email": ADA, "password": PASSWORD}

        answer = await weather.browser.post("/sign-in", data=form)

        assert answer.status_code == 403
        assert "evil" not in answer.text

    @pytest.mark.parametrize("body", [b"", b"\xff", b"csrf=%ff", b"&" * 100, b"{}", b"\0"])
    @pytest.mark.parametrize("path", ["/sign-in", "/sign-in/code", "/consent", "/logout/confirm"])
    async def test_a_malformed_form_is_refused(self, weather: App, path: str, body: bytes) -> None:
        answer = await weather.browser.post(path, content=body)

        assert answer.status_code == 403
        assert_safe_page(answer)

    async def test_consent_needs_someone_who_is_signed_in(
        self, weather: App, database: Database
    ) -> None:
        consent = await weather.sign_in(await weather.authorize())
        async with database.transaction() as session:
            await session.execute(update(BrowserSession).values(expires_at=datetime.now(UTC)))

        answer = await weather.send(consent, decision="allow")

        assert Page(await weather.follow(answer)).actions == ["/sign-in"]

    async def test_a_consent_form_with_another_redirect_uri_is_refused(self, weather: App) -> None:
        consent = await weather.sign_in(await weather.authorize())
        changed = weather.parameters(redirect_uri="https://evil.example.com/")

        answer = await weather.send(
            consent, decision="allow", **{"continue": f"/authorize?{urlencode(changed)}"}
        )

        assert answer.status_code == 400


class TestCodes:
    async def test_a_code_is_good_once_and_a_replay_revokes_its_tokens(
        self,
        weather: App,
        client: AsyncClient,
        app: FastAPI,
        database: Database,
        ada: dict[str, str],
    ) -> None:
        code = await weather.get_code()
        first = (await weather.exchange(code)).json()
        second = (await weather.refresh(first["refresh_token"])).json()

        replayed = await weather.exchange(code)

        assert_refused(replayed, "invalid_grant")
        for tokens in (first, second):
            answer = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
            assert answer.status_code == 401
            assert_refused(await weather.refresh(tokens["refresh_token"]), "invalid_grant")
        assert [kind for kind, _ in await revoked(database)] == ["jti", "jti"]
        await wait_for_audit(database, "code_reused", ada["id"])

    async def test_of_concurrent_exchanges_none_keeps_tokens(
        self, weather: App, client: AsyncClient, database: Database
    ) -> None:
        code = await weather.get_code()

        answers = await asyncio.gather(*(weather.exchange(code) for _ in range(4)))

        assert sorted(each.status_code for each in answers) == [200, 400, 400, 400]
        [tokens] = [each.json() for each in answers if each.status_code == 200]
        info = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
        assert info.status_code == 401
        assert await count(database, RefreshFamily) == 1  # Ada's own log-in

    @pytest.mark.parametrize(
        "changes",
        [
            {"code": "x"},
            {"code": "é"},
            {"code": "x" * 5000},
            {"code_verifier": "w" * 43},
            {"code_verifier": "short"},
            {"code_verifier": "é" * 43},
            {"code_verifier": "v" * 129},
            {"redirect_uri": "https://evil.example.com/callback"},
            {"redirect_uri": f"{CALLBACK}/"},
        ],
    )
    async def test_a_code_is_bound_to_its_request(
        self, weather: App, app: FastAPI, database: Database, changes: dict[str, str | None]
    ) -> None:
        code = await weather.get_code()

        wrong = await weather.exchange(code, **changes)

        assert_refused(wrong, "invalid_grant")
        await wait_for_audit(database, "code_rejected", weather.client_id)
        assert (await weather.exchange(code)).status_code == 200

    @pytest.mark.parametrize("name", ["code", "redirect_uri", "code_verifier"])
    async def test_every_parameter_is_required(self, weather: App, name: str) -> None:
        answer = await weather.exchange(await weather.get_code(), **{name: None})

        assert_refused(answer, "invalid_request")

    async def test_a_code_of_another_app_is_refused(
        self, weather: App, client: AsyncClient, as_ada: Headers, app: FastAPI
    ) -> None:
        other = await register_app(client, as_ada, app, name="Other")
        code = await weather.get_code()

        assert_refused(await other.exchange(code), "invalid_grant")

        assert_refused(await weather.exchange(code, client_id=None), "invalid_client", 401)
        assert (await weather.exchange(code)).status_code == 200
        assert_refused(await other.exchange(code), "invalid_grant")
        await other.browser.aclose()

    async def test_a_code_expires_after_a_minute(self, weather: App, database: Database) -> None:
        code = await weather.get_code()
        async with database.transaction() as session:
            stored = (await session.scalars(select(AuthorizationCode))).one()
            assert stored.expires_at - stored.created_at == timedelta(seconds=60)
            assert code not in str(vars(stored))
            stored.expires_at = datetime.now(UTC)

        assert_refused(await weather.exchange(code), "invalid_grant")

    async def test_a_refresh_token_works_at_its_own_app_only(
        self, weather: App, client: AsyncClient, as_ada: Headers, app: FastAPI
    ) -> None:
        other = await register_app(client, as_ada, app, name="Other")
        tokens = await weather.get_tokens()

        assert_refused(await other.refresh(tokens["refresh_token"]), "invalid_grant")

        assert_refused(await weather.refresh(tokens["refresh_token"]), "invalid_grant")
        info = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
        assert info.status_code == 401
        await other.browser.aclose()

    async def test_a_refreshed_token_keeps_its_client_and_may_have_less_scope(
        self, weather: App, client: AsyncClient
    ) -> None:
        tokens = await weather.get_tokens()

        narrow = (await weather.refresh(tokens["refresh_token"], scope="openid")).json()
        wider = await weather.refresh(narrow["refresh_token"], scope="openid admin")

        claims = jwt.get_unverified_claims(narrow["access_token"])
        assert (narrow["scope"], claims["client_id"]) == ("openid", weather.client_id)
        assert_refused(wider, "invalid_scope")

    async def test_the_first_party_client_cannot_use_an_apps_refresh_token(
        self, weather: App, client: AsyncClient
    ) -> None:
        tokens = await weather.get_tokens()

        answer = await client.post(
            "/token",
            data={"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]},
        )

        assert_refused(answer, "invalid_grant")

    async def test_revoking_the_refresh_token_revokes_the_access_tokens(
        self, weather: App, client: AsyncClient, database: Database
    ) -> None:
        tokens = await weather.get_tokens()

        await client.post("/revoke", data={"token": tokens["refresh_token"]})

        info = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
        assert info.status_code == 401
        assert await count(database, FamilyToken) == 1  # cleaned up when it expires


@pytest.mark.any_database
class TestPublicClients:
    @pytest.mark.parametrize("grant", ["password", "client_credentials"])
    async def test_they_may_use_no_other_grant(self, weather: App, grant: str) -> None:
        answer = await weather.browser.post(
            "/token",
            data={
                "grant_type": grant,
                "client_id": weather.client_id,
                "username": ADA,
                "password": PASSWORD,
            },
        )

        assert_refused(answer, "unauthorized_client")

    async def test_they_have_no_secret(self, weather: App) -> None:
        code = await weather.get_code()

        assert_refused(await weather.exchange(code, client_secret="x"), "invalid_client", 401)

    async def test_they_cannot_introspect(self, weather: App, client: AsyncClient) -> None:
        tokens = await weather.get_tokens()

        answer = await client.post(
            "/introspect",
            data={"token": tokens["access_token"], "client_id": weather.client_id},
        )

        assert_refused(answer, "invalid_client", 401)

    async def test_a_machine_client_cannot_exchange_a_code(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        machine = (await client.post("/clients", json={"name": "job"}, headers=as_ada)).json()

        answer = await weather.exchange(
            await weather.get_code(),
            client_id=machine["client_id"],
            client_secret=machine["client_secret"],
        )

        assert_refused(answer, "unauthorized_client")

    async def test_they_are_listed_with_their_addresses(
        self, weather: App, client: AsyncClient, as_ada: Headers
    ) -> None:
        [shown] = (await client.get("/clients", headers=as_ada)).json()["clients"]

        assert (shown["type"], shown["redirect_uris"]) == ("public", [CALLBACK])

    @pytest.mark.parametrize(
        "body",
        [
            {"redirect_uris": []},
            {"redirect_uris": ["http://app.example.com/"]},
            {"redirect_uris": [CALLBACK] * 11},
            {"post_logout_redirect_uris": ["javascript:alert(1)"]},
            {"type": "confidential"},
            {"scope": "admin"},
        ],
    )
    async def test_an_invalid_one_is_not_registered(
        self, client: AsyncClient, as_ada: Headers, body: dict[str, object]
    ) -> None:
        valid = {"name": "x", "type": "public", "redirect_uris": [CALLBACK]}

        answer = await client.post("/clients", json=valid | body, headers=as_ada)

        assert answer.status_code == 422

    async def test_a_program_on_someones_machine_takes_any_free_port(
        self, client: AsyncClient, as_ada: Headers, app: FastAPI
    ) -> None:
        native = await register_app(
            client, as_ada, app, redirect_uris=["http://127.0.0.1/callback"]
        )
        native.redirect_uri = "http://127.0.0.1:51004/callback"

        shown = await native.authorize()
        tokens = await native.get_tokens()
        again = await native.authorize()

        assert_safe_page(shown, targets=" http://127.0.0.1:51004")
        assert tokens["scope"] == "openid email profile predict"
        assert Page(again).actions == ["/consent"]  # any program can claim a loopback address
        await native.browser.aclose()
