"""Sign in with a company's provider: which user its people get."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from httpx import AsyncClient
from sqlalchemy import select, update

from services.auth.models import User
from services.auth.providers.models import ProviderIdentity
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, PASSWORD, OpenApp, browse, confirm_addresses, count
from tests.integration.auth.openid.company import (
    Company,
    come_back,
    come_back_as_stranger,
    settings_of,
)
from tests.integration.auth.openid.signing_in import TARGET, App, assert_safe_page, wait_for_audit
from tests.integration.auth.pages import Page

pytestmark = pytest.mark.any_database


@pytest.fixture
async def weather(weather: App, open_app: OpenApp, company: Company) -> AsyncIterator[App]:
    """The app, at an auth that offers to sign in with the company."""
    async with open_app(providers=(settings_of(company),)) as running, browse(running) as browser:
        yield replace(weather, browser=browser)


class TestLinking:
    @pytest.mark.costly
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
        await confirm_addresses(database)

        consent = await weather.follow(await come_back(weather))

        assert Page(consent).actions == ["/consent"]
        async with database.snapshot() as session:
            linked = (await session.scalars(select(ProviderIdentity))).one()
        assert (linked.user_id, linked.subject) == (ada["id"], "person-1")
        await wait_for_audit(database, "provider_linked", ada["id"])

    @pytest.mark.costly
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

    @pytest.mark.costly
    async def test_the_password_of_another_user_links_nothing(
        self, weather: App, client: AsyncClient, database: Database
    ) -> None:
        await client.post("/register", json={"email": "bob@x.io", "password": PASSWORD})
        asked = await come_back(weather)

        answer = await weather.send(asked, email="bob@x.io", password=PASSWORD)

        assert Page(await weather.follow(answer)).actions == ["/consent"]
        assert await count(database, ProviderIdentity) == 0

    @pytest.mark.costly
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

    @pytest.mark.costly
    async def test_a_linked_person_keeps_the_user_if_their_email_changes(
        self, weather: App, company: Company, database: Database
    ) -> None:
        await confirm_addresses(database)
        await come_back(weather)
        company.claims = {"email": "married@example.com"}

        answer = await come_back_as_stranger(weather)

        assert Page(await weather.follow(answer)).actions == ["/consent"]
        assert await count(database, User) == 1

    @pytest.mark.costly
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
        await confirm_addresses(database)
        company.claims = claims
        company.info = {"sub": "person-1"}

        answer = await come_back(weather)

        assert answer.status_code == 403
        assert_safe_page(answer, targets=TARGET)
        assert await count(database, ProviderIdentity) == 0
        await wait_for_audit(database, "provider_sign_in_refused")

    @pytest.mark.costly
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

    @pytest.mark.costly
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

    @pytest.mark.costly
    async def test_a_second_factor_is_still_needed(self, weather: App, database: Database) -> None:
        await confirm_addresses(database)
        enabled = {"totp_secret": "A" * 32, "totp_confirmed_at": User.created_at}
        async with database.transaction() as session:
            await session.execute(update(User).values(**enabled))

        asked = await come_back(weather)

        assert Page(asked).actions == ["/sign-in/code"]
        assert Page(await weather.authorize()).actions == ["/sign-in"]
