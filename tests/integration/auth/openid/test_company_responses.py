"""Sign in with a company's provider: which of its responses count."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.auth.providers.models import ProviderIdentity
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, OpenApp, browse, confirm_addresses, count
from tests.integration.auth.openid.company import (
    Company,
    come_back,
    come_back_as_stranger,
    go_to_company,
    new_key_ring,
    settings_of,
)
from tests.integration.auth.openid.signing_in import TARGET, App, assert_safe_page, wait_for_audit
from tests.integration.auth.pages import Page


@pytest.fixture
async def weather(weather: App, open_app: OpenApp, company: Company) -> AsyncIterator[App]:
    """The app, at an auth that offers to sign in with the company."""
    async with open_app(providers=(settings_of(company),)) as running, browse(running) as browser:
        yield replace(weather, browser=browser)


@pytest.mark.costly
@pytest.mark.any_database
class TestTrust:
    async def test_an_id_token_with_a_wrong_claim_signs_nobody_in(
        self, weather: App, company: Company, database: Database
    ) -> None:
        await confirm_addresses(database)
        company.claims = {"nonce": "another"}

        answer = await come_back(weather)

        assert answer.status_code == 503
        assert_safe_page(answer, targets=TARGET)
        assert await count(database, ProviderIdentity) == 0
        await wait_for_audit(database, "provider_failed")

    async def test_a_key_of_another_provider_is_refused(
        self, weather: App, company: Company, database: Database
    ) -> None:
        await confirm_addresses(database)
        company.signing = new_key_ring()

        assert (await come_back(weather)).status_code == 503

    async def test_a_new_key_is_found(
        self, weather: App, company: Company, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.auth.providers.client.KEYS_COOLDOWN_S", -1.0)
        await confirm_addresses(database)
        await come_back(weather)
        company.keys = new_key_ring()

        answer = await come_back_as_stranger(weather)

        assert answer.status_code == 303
        assert company.calls.count("/jwks") == 2

    async def test_the_userinfo_must_be_about_the_same_person(
        self, weather: App, company: Company, database: Database
    ) -> None:
        await confirm_addresses(database)
        company.claims = {"email": None, "email_verified": None}
        company.info = {"sub": "another", "email": ADA, "email_verified": True}
        mixed_up = await come_back(weather)
        company.info = company.info | {"sub": "person-1"}

        answer = await come_back_as_stranger(weather)

        assert mixed_up.status_code == 503
        assert answer.status_code == 303

    @pytest.mark.parametrize(
        "metadata",
        [
            {"issuer": "https://evil.example.com"},
            {"token_endpoint": None},
            {"authorization_endpoint": "javascript:alert(1)"},
            {"jwks_uri": ""},
        ],
    )
    async def test_a_wrong_discovery_document_is_refused(
        self, weather: App, company: Company, metadata: dict[str, object]
    ) -> None:
        company.metadata = metadata
        _forgotten, link = Page(await weather.authorize()).links

        answer = await weather.browser.get(link)

        assert answer.status_code == 503
        assert_safe_page(answer, targets=TARGET)

    @pytest.mark.parametrize("issuer", ["https://evil.example.com", ""])
    async def test_a_response_of_a_mixed_up_provider_is_refused(
        self, weather: App, company: Company, issuer: str
    ) -> None:
        company.metadata = {"authorization_response_iss_parameter_supported": True}
        company.answer = {"iss": issuer}

        answer = await come_back(weather)

        assert answer.status_code == 503
        assert "/token" not in company.calls

    async def test_a_provider_that_is_away_is_a_page(
        self, weather: App, open_app: OpenApp, company: Company
    ) -> None:
        gone = settings_of(company).model_copy(update={"issuer": "http://127.0.0.1:1"})
        async with open_app(providers=(gone,)) as running, browse(running) as browser:
            _forgotten, link = Page(await App(weather.client_id, browser).authorize()).links

            answer = await browser.get(link)

        assert answer.status_code == 503
        assert Page(answer).actions == ["/sign-in"]


@pytest.mark.any_database
class TestState:
    @pytest.mark.costly
    async def test_a_response_that_another_browser_began_is_refused(
        self, weather: App, database: Database, company: Company
    ) -> None:
        url = await go_to_company(weather)
        weather.browser.cookies.clear()
        await weather.authorize()

        answer = await weather.browser.get(url)

        assert answer.status_code == 403
        assert_safe_page(answer)
        assert "/token" not in company.calls
        await wait_for_audit(database, "provider_state_rejected")

    async def test_a_response_is_good_once(self, weather: App, database: Database) -> None:
        await confirm_addresses(database)
        url = await go_to_company(weather)
        first = await weather.browser.get(url)

        replayed = await weather.browser.get(url)

        assert (first.status_code, replayed.status_code) == (303, 403)

    @pytest.mark.costly
    async def test_an_old_response_is_refused(
        self, weather: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = await go_to_company(weather)
        monkeypatch.setattr("services.auth.providers.states.LIFETIME_S", 0)

        assert (await weather.browser.get(url)).status_code == 403

    @pytest.mark.costly
    @pytest.mark.parametrize(
        "query", ["", "state=x&code=y", "state=%ff", "state=.", "code=x", "&" * 100, "state=é.é"]
    )
    async def test_an_invented_response_is_refused(self, weather: App, query: str) -> None:
        await weather.authorize()

        answer = await weather.browser.get(f"/sign-in/callback/Example%20Corp?{query}")

        assert answer.status_code == 403
        assert_safe_page(answer)

    @pytest.mark.costly
    async def test_a_state_of_another_provider_is_refused(self, weather: App) -> None:
        url = await go_to_company(weather)

        answer = await weather.browser.get(url.replace("Example%20Corp", "Other"))

        assert answer.status_code == 403

    @pytest.mark.costly
    async def test_an_error_of_the_provider_is_shown_on_the_sign_in_page(
        self, weather: App, company: Company, database: Database
    ) -> None:
        company.answer = {"code": "", "error": "access_denied", "error_description": "<script>"}

        answer = await come_back(weather)

        assert answer.status_code == 400
        assert_safe_page(answer, targets=TARGET)
        assert Page(answer).actions == ["/sign-in"]
        await wait_for_audit(database, "provider_denied")

    @pytest.mark.costly
    async def test_a_code_that_the_provider_does_not_know_is_refused(
        self, weather: App, company: Company
    ) -> None:
        company.answer = {"code": "invented"}

        assert (await come_back(weather)).status_code == 503

    @pytest.mark.costly
    @pytest.mark.parametrize(
        "path",
        [
            "/sign-in/with/Unknown?continue=/authorize",
            "/sign-in/with/Example%20Corp",
            "/sign-in/with/Example%20Corp?continue=https://evil.example.com",
            "/sign-in/with/Example%20Corp?continue=//evil.example.com",
            "/sign-in/with/Example%20Corp?continue=/authorize%3Fx%3D" + "z" * 5000,
            "/sign-in/with/Example%20Corp?%ff=%ff",
        ],
    )
    async def test_a_wrong_beginning_is_a_page(self, weather: App, path: str) -> None:
        answer = await weather.browser.get(path)

        assert answer.status_code == 400
        assert_safe_page(answer)
