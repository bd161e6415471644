"""The forms of the sign-in pages: they work in the browser that they were shown to."""

from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from sqlalchemy import update

from services.auth.openid.models import AuthorizationCode
from services.auth.sessions.models import BrowserSession
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, PASSWORD, browse, count
from tests.integration.auth.openid.signing_in import App, assert_safe_page, wait_for_audit
from tests.integration.auth.pages import Page


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
