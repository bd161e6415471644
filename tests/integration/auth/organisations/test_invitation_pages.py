"""The page that the link of an invitation leads to."""

from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import update

from services.auth.models import Invitation, User
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, PASSWORD, confirm_addresses, count
from tests.integration.auth.organisations.invitations import bobs_mail
from tests.integration.auth.organisations.people import BOB, Person, sign_up, signed_in
from tests.integration.auth.pages import Page, assert_safe, link_in, send


@pytest.mark.any_database
class TestPages:
    @pytest.fixture
    async def invited(
        self, client: AsyncClient, ada: Person, organisation: str, database: Database
    ) -> Person:
        """Bob, who was invited before he registered, and has confirmed his address."""
        await ada.put(organisation, BOB, "viewer")
        bob = await sign_up(client, BOB)
        await confirm_addresses(database)
        return bob

    async def open_link(self, client: AsyncClient, app: FastAPI) -> Any:
        return await client.get(link_in(await bobs_mail(app)))

    async def test_a_stranger_registers_and_joins_on_the_page(
        self, app: FastAPI, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        await ada.put(organisation, BOB, "viewer")
        shown = await self.open_link(client, app)

        weak = await send(client, shown, password="short")
        answer = await send(client, weak, password=PASSWORD)
        again = await send(client, shown, password=PASSWORD)

        for each in (shown, weak, answer, again):
            assert_safe(each)
        assert "Analytical Engines" in shown.text
        assert [shown.status_code, weak.status_code] == [200, 422]
        assert [answer.status_code, again.status_code] == [200, 400]
        bob = await signed_in(client, BOB)
        assert await bob.own_roles() == {"Analytical Engines": "viewer"}

    async def test_a_user_joins_with_a_click_and_opening_the_page_uses_up_nothing(
        self, app: FastAPI, client: AsyncClient, invited: Person
    ) -> None:
        shown = await self.open_link(client, app)
        before = await invited.own_roles()
        answer = await send(client, shown)

        assert_safe(shown)
        assert "password" not in Page(shown).fields
        assert (before, answer.status_code) == ({}, 200)
        assert await invited.own_roles() == {"Analytical Engines": "viewer"}

    async def test_a_click_does_not_let_in_a_user_who_never_confirmed_the_address(
        self, app: FastAPI, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        await ada.put(organisation, BOB, "viewer")
        squatter = await sign_up(client, BOB)

        answer = await send(client, await self.open_link(client, app))

        assert_safe(answer)
        assert answer.status_code == 409
        assert await squatter.own_roles() == {}
        own = (await client.get("/userinfo", headers=squatter.headers)).json()
        assert own["email_verified"] is False

    async def test_names_are_escaped(self, app: FastAPI, client: AsyncClient, ada: Person) -> None:
        organisation = await ada.create_organisation("<script>{organisation}</script>")
        await ada.put(organisation, BOB, "viewer")
        mail = await bobs_mail(app)
        html = mail.get_body(("html",))
        assert html is not None

        shown = await client.get(link_in(mail))

        assert_safe(shown)
        assert "<script" not in html.get_content()

    async def test_an_unknown_token_is_refused(self, client: AsyncClient, ada: Person) -> None:
        shown = await client.get("/invitations/accept?token=x")
        sent = await client.post("/invitations/accept/page", data={"token": "x"})

        for answer in (shown, sent):
            assert_safe(answer)
            assert answer.status_code == 400

    async def test_a_disabled_user_cannot_join(
        self,
        app: FastAPI,
        client: AsyncClient,
        ada: Person,
        organisation: str,
        invited: Person,
        database: Database,
    ) -> None:
        shown = await self.open_link(client, app)
        async with database.transaction() as session:
            disabled = update(User).where(User.id == invited.id).values(disabled_at=User.created_at)
            await session.execute(disabled)

        answer = await send(client, shown)

        assert answer.status_code == 400
        assert await ada.roles(organisation) == {ADA: "owner"}
        assert await count(database, Invitation) == 1
