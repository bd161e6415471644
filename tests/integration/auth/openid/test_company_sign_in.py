"""Sign in with a company's provider."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import SecretStr
from sqlalchemy import select, update

from services.auth.keys import KeyRing
from services.auth.models import ProviderIdentity, User
from services.auth.settings import ProviderSettings
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, PASSWORD, Headers, OpenApp, browse, count
from tests.integration.auth.openid.company import (
    CLIENT_ID,
    SECRET,
    Company,
    new_key_ring,
    running_company,
)
from tests.integration.auth.openid.signing_in import (
    App,
    Page,
    assert_safe_page,
    register_app,
    wait_for_audit,
)

TARGET = " https://app.example.com"


@pytest.fixture(scope="module")
def keys() -> KeyRing:
    return new_key_ring()


@pytest.fixture
async def company(keys: KeyRing) -> AsyncIterator[Company]:
    async with running_company(keys) as running:
        yield running


def settings_of(company: Company) -> ProviderSettings:
    return ProviderSettings(
        name="Example Corp",
        issuer=company.issuer,
        client_id=CLIENT_ID,
        client_secret=SecretStr(SECRET),
    )


@pytest.fixture
async def weather(
    client: AsyncClient, as_ada: Headers, app: FastAPI, open_app: OpenApp, company: Company
) -> AsyncIterator[App]:
    """An app of Ada's, at an auth that offers to sign in with the company."""
    registered = await register_app(client, as_ada, app)
    await registered.browser.aclose()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(open_app(providers=(settings_of(company),)))
        registered.browser = await stack.enter_async_context(browse(running))
        yield registered


async def go_to_company(person: App) -> str:
    """Choose the company on the sign-in page; return where it sends the browser back to."""
    [link] = Page(await person.authorize()).links
    sent = await person.browser.get(link)
    assert sent.status_code == 303, sent.text
    async with httpx.AsyncClient(trust_env=False, timeout=60) as outside:
        back = await outside.get(sent.headers["Location"])
    location = str(back.headers["Location"])
    assert location.startswith("http://auth.test/sign-in/callback/Example%20Corp?")
    return location


async def come_back(person: App) -> httpx.Response:
    return await person.browser.get(await go_to_company(person))


async def come_back_as_stranger(person: App) -> httpx.Response:
    """Sign in with the company in a browser that has forgotten everything."""
    person.browser.cookies.clear()
    return await come_back(person)


async def verify_email(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(update(User).values(email_verified_at=User.created_at))


class TestLinking:
    async def test_a_new_person_gets_a_user(
        self, weather: App, company: Company, database: Database
    ) -> None:
        company.claims = {"email": "New@Example.com", "sub": "person-2"}

        consent = await weather.follow(await come_back(weather))
        again = await weather.follow(await come_back_as_stranger(weather))

        assert_safe_page(consent, targets=TARGET)
        assert Page(consent).actions == Page(again).actions == ["/consent"]
        created = select(User).where(User.email == "new@example.com")
        async with database.snapshot() as session:
            user = (await session.scalars(created)).one()
        assert user.email_verified_at is not None
        assert user.name == "Ada of Example"
        assert await count(database, ProviderIdentity) == 1

    async def test_a_user_with_a_verified_email_is_linked(
        self, weather: App, database: Database, ada: dict[str, str]
    ) -> None:
        await verify_email(database)

        consent = await weather.follow(await come_back(weather))

        assert Page(consent).actions == ["/consent"]
        async with database.snapshot() as session:
            linked = (await session.scalars(select(ProviderIdentity))).one()
        assert (linked.user_id, linked.subject) == (ada["id"], "person-1")
        await wait_for_audit(database, "provider_linked", ada["id"])

    async def test_a_user_without_a_verified_email_signs_in_with_the_password_first(
        self, weather: App, database: Database
    ) -> None:
        asked = await come_back(weather)
        before = await count(database, ProviderIdentity)
        wrong = await weather.send(asked, password="wrong password")
        consent = await weather.follow(await weather.send(wrong, password=PASSWORD))

        assert_safe_page(asked, targets=TARGET)
        assert Page(asked).fields["email"] == ADA
        assert before == 0
        assert Page(consent).actions == ["/consent"]
        assert await count(database, ProviderIdentity) == 1
        stranger = await come_back_as_stranger(weather)
        assert Page(await weather.follow(stranger)).actions == ["/consent"]

    async def test_the_password_of_another_user_links_nothing(
        self, weather: App, client: AsyncClient, database: Database
    ) -> None:
        await client.post("/register", json={"email": "bob@x.io", "password": PASSWORD})
        asked = await come_back(weather)

        answer = await weather.send(asked, email="bob@x.io", password=PASSWORD)

        assert Page(await weather.follow(answer)).actions == ["/consent"]
        assert await count(database, ProviderIdentity) == 0

    @pytest.mark.parametrize("forge", [lambda link: link[:-1], lambda link: f"x{link}"])
    async def test_a_forged_link_is_ignored(
        self, weather: App, database: Database, forge: object
    ) -> None:
        asked = await come_back(weather)
        link = Page(asked).fields["link"]

        forged = forge(link)  # type: ignore[operator]
        answer = await weather.send(asked, password=PASSWORD, link=forged)

        assert answer.status_code == 303
        assert await count(database, ProviderIdentity) == 0

    async def test_a_linked_person_keeps_the_user_if_their_email_changes(
        self, weather: App, company: Company, database: Database
    ) -> None:
        await verify_email(database)
        await come_back(weather)
        company.claims = {"email": "married@example.com"}

        answer = await come_back_as_stranger(weather)

        assert Page(await weather.follow(answer)).actions == ["/consent"]
        assert await count(database, User) == 1

    @pytest.mark.parametrize(
        "claims",
        [
            {"email_verified": False},
            {"email_verified": "true"},
            {"email": None},
            {"email": 7},
            {"email": "no address"},
        ],
    )
    async def test_only_a_verified_email_counts(
        self, weather: App, company: Company, database: Database, claims: dict[str, object]
    ) -> None:
        await verify_email(database)
        company.claims = claims
        company.info = {"sub": "person-1"}

        answer = await come_back(weather)

        assert answer.status_code == 403
        assert_safe_page(answer, targets=TARGET)
        assert await count(database, ProviderIdentity) == 0
        await wait_for_audit(database, "provider_sign_in_refused")

    async def test_a_disabled_user_cannot_sign_in(
        self, weather: App, company: Company, database: Database
    ) -> None:
        company.claims = {"email": "bob@x.io", "sub": "bob"}
        await come_back(weather)
        async with database.transaction() as session:
            bob = (await session.scalars(select(User).where(User.email == "bob@x.io"))).one()
            bob.disabled_at = bob.created_at

        answer = await come_back_as_stranger(weather)

        assert answer.status_code == 403

    async def test_by_invitation_nobody_new_gets_in(
        self, weather: App, company: Company, open_app: OpenApp, database: Database
    ) -> None:
        company.claims = {"email": "new@example.com"}
        offered = (settings_of(company),)
        async with (
            open_app(providers=offered, registration="invite") as closed,
            browse(closed) as browser,
        ):
            answer = await come_back(App(weather.client_id, browser))

        assert answer.status_code == 403
        assert "by invitation" in answer.text
        assert await count(database, User) == 1

    async def test_a_second_factor_is_still_needed(self, weather: App, database: Database) -> None:
        await verify_email(database)
        enabled = {"totp_secret": "A" * 32, "totp_confirmed_at": User.created_at}
        async with database.transaction() as session:
            await session.execute(update(User).values(**enabled))

        asked = await come_back(weather)

        assert Page(asked).actions == ["/sign-in/code"]
        assert Page(await weather.authorize()).actions == ["/sign-in"]


@pytest.mark.any_database
class TestTrust:
    async def test_an_id_token_with_a_wrong_claim_signs_nobody_in(
        self, weather: App, company: Company, database: Database
    ) -> None:
        await verify_email(database)
        company.claims = {"nonce": "another"}

        answer = await come_back(weather)

        assert answer.status_code == 503
        assert_safe_page(answer, targets=TARGET)
        assert await count(database, ProviderIdentity) == 0
        await wait_for_audit(database, "provider_failed")

    async def test_a_key_of_another_provider_is_refused(
        self, weather: App, company: Company, database: Database
    ) -> None:
        await verify_email(database)
        company.signing = new_key_ring()

        assert (await come_back(weather)).status_code == 503

    async def test_a_new_key_is_found(
        self, weather: App, company: Company, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.auth.providers.client.KEYS_COOLDOWN_S", -1.0)
        await verify_email(database)
        await come_back(weather)
        company.keys = new_key_ring()

        answer = await come_back_as_stranger(weather)

        assert answer.status_code == 303
        assert company.calls.count("/jwks") == 2

    async def test_the_userinfo_must_be_about_the_same_person(
        self, weather: App, company: Company, database: Database
    ) -> None:
        await verify_email(database)
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
        [link] = Page(await weather.authorize()).links

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
            [link] = Page(await App(weather.client_id, browser).authorize()).links

            answer = await browser.get(link)

        assert answer.status_code == 503
        assert Page(answer).actions == ["/sign-in"]


@pytest.mark.any_database
class TestState:
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
        await verify_email(database)
        url = await go_to_company(weather)
        first = await weather.browser.get(url)

        replayed = await weather.browser.get(url)

        assert (first.status_code, replayed.status_code) == (303, 403)

    async def test_an_old_response_is_refused(
        self, weather: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = await go_to_company(weather)
        monkeypatch.setattr("services.auth.providers.states.LIFETIME_S", 0)

        assert (await weather.browser.get(url)).status_code == 403

    @pytest.mark.parametrize(
        "query", ["", "state=x&code=y", "state=%ff", "state=.", "code=x", "&" * 100, "state=é.é"]
    )
    async def test_an_invented_response_is_refused(self, weather: App, query: str) -> None:
        await weather.authorize()

        answer = await weather.browser.get(f"/sign-in/callback/Example%20Corp?{query}")

        assert answer.status_code == 403
        assert_safe_page(answer)

    async def test_a_state_of_another_provider_is_refused(self, weather: App) -> None:
        url = await go_to_company(weather)

        answer = await weather.browser.get(url.replace("Example%20Corp", "Other"))

        assert answer.status_code == 403

    async def test_an_error_of_the_provider_is_shown_on_the_sign_in_page(
        self, weather: App, company: Company, database: Database
    ) -> None:
        company.answer = {"code": "", "error": "access_denied", "error_description": "<script>"}

        answer = await come_back(weather)

        assert answer.status_code == 400
        assert_safe_page(answer, targets=TARGET)
        assert Page(answer).actions == ["/sign-in"]
        await wait_for_audit(database, "provider_denied")

    async def test_a_code_that_the_provider_does_not_know_is_refused(
        self, weather: App, company: Company
    ) -> None:
        company.answer = {"code": "invented"}

        assert (await come_back(weather)).status_code == 503

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
