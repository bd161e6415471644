"""Where registration is by invitation, only a valid invitation of an administrator registers."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import OneTimeLink, QueuedMail, User
from services.auth.users.mailed import invite as queue_invitation
from services.auth.users.service import ensure_user, find_user_by_email, set_disabled
from services.common.db.database import Database
from services.common.errors import Unauthenticated
from tests.integration.auth.conftest import (
    ADMIN,
    PASSWORD,
    Headers,
    OpenApp,
    browse,
    count,
    next_mail,
    token_in,
)
from tests.integration.auth.organisations.people import BOB, Person, assert_problem, sign_up
from tests.integration.auth.pages import assert_safe, link_in, send

pytestmark = pytest.mark.any_database


@pytest.fixture
async def closed(app: FastAPI, open_app: OpenApp) -> AsyncIterator[FastAPI]:
    """The app while registration is by invitation."""
    async with open_app(registration="invite") as opened:
        yield opened


@pytest.fixture
async def visitor(closed: FastAPI) -> AsyncIterator[AsyncClient]:
    async with browse(closed) as client:
        yield client


async def register(visitor: AsyncClient, token: str) -> Any:
    body = {"email": BOB, "password": PASSWORD, "invitation": token}
    return await visitor.post("/register", json=body)


async def invited_by_admin(app: FastAPI, visitor: AsyncClient, as_admin: Headers) -> str:
    """Let the administrator invite Bob; return the token in his mail."""
    await visitor.post("/users/invite", json={"email": BOB}, headers=as_admin)
    return token_in(await next_mail(app, to=BOB, subject="You are invited"))


async def take_rights(session: AsyncSession, app: FastAPI, how: str) -> None:
    """Take the administrator's right to invite away."""
    if how == "disabled":
        await set_disabled(session, email=ADMIN, disabled=True, allow_last_admin=True)
    elif how == "demoted":
        hasher = app.state.hasher
        await ensure_user(session, hasher=hasher, email=ADMIN, password=PASSWORD, admin=False)
    else:
        await session.execute(delete(User).where(User.email == ADMIN))


@pytest.mark.costly
class TestOrganisations:
    @pytest.fixture
    async def organisation(self, client: AsyncClient) -> tuple[Person, str]:
        """Ada, and the id of her organisation."""
        ada = await sign_up(client, "ada@example.com")
        return ada, await ada.create_organisation()

    async def test_an_organisations_invitation_waits_until_an_administrator_invites_too(
        self,
        closed: FastAPI,
        visitor: AsyncClient,
        organisation: tuple[Person, str],
        as_admin: Headers,
        database: Database,
    ) -> None:
        ada, id = organisation
        await ada.put(id, BOB, "developer")
        joining = token_in(await next_mail(closed, to=BOB, subject="invited to an organisation"))
        before = await count(database, User)

        refused = await register(visitor, joining)
        registered = await register(visitor, await invited_by_admin(closed, visitor, as_admin))
        joined = await visitor.post("/invitations/accept/page", data={"token": joining})

        assert_problem(refused, 403, "invitation_needed")
        assert "administrator" in refused.json()["detail"]
        assert [registered.status_code, joined.status_code] == [201, 200]
        assert await count(database, User) == before + 1
        assert (await ada.roles(id))[BOB] == "developer"

    async def test_the_page_registers_nobody_either(
        self,
        closed: FastAPI,
        client: AsyncClient,
        visitor: AsyncClient,
        organisation: tuple[Person, str],
        database: Database,
    ) -> None:
        ada, id = organisation
        await ada.put(id, BOB, "viewer")
        link = link_in(await next_mail(closed, to=BOB, subject="invited to an organisation"))
        form = await client.get(link)  # as shown while anyone could register

        shown = await visitor.get(link)
        sent = await send(visitor, form, password=PASSWORD)

        for answer in (shown, sent):
            assert_safe(answer)
            assert answer.status_code == 403
            assert "administrator" in answer.text
        assert await count(database, User) == 1


class TestAdministrators:
    @pytest.mark.costly
    @pytest.mark.parametrize("how", ["disabled", "demoted", "deleted"])
    async def test_an_invitation_ends_with_the_administrators_right_to_invite(
        self,
        closed: FastAPI,
        visitor: AsyncClient,
        as_admin: Headers,
        database: Database,
        how: str,
    ) -> None:
        token = await invited_by_admin(closed, visitor, as_admin)

        async with database.transaction() as session:
            await take_rights(session, closed, how)

        assert_problem(await register(visitor, token), 400, "invalid_link")
        assert await count(database, OneTimeLink) == 0

    @pytest.mark.parametrize("how", ["disabled", "demoted", "deleted"])
    async def test_an_invitation_that_is_not_mailed_yet_ends_too(
        self, app: FastAPI, as_admin: Headers, database: Database, how: str
    ) -> None:
        async with database.transaction() as session:
            admin = await find_user_by_email(session, email=ADMIN)
            assert admin is not None
            await queue_invitation(session, email=BOB, admin=admin, address="127.0.0.1")
            await take_rights(session, app, how)  # before it is sent in the background

        assert await count(database, QueuedMail) == 0

    async def test_someone_who_was_disabled_meanwhile_invites_nobody(
        self, app: FastAPI, as_admin: Headers, database: Database
    ) -> None:
        async with database.snapshot() as session:
            admin = await find_user_by_email(session, email=ADMIN)
        assert admin is not None
        async with database.transaction() as session:
            await take_rights(session, app, "disabled")

        with pytest.raises(Unauthenticated):
            async with database.transaction() as session:
                await queue_invitation(session, email=BOB, admin=admin, address="127.0.0.1")
