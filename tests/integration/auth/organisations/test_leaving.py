"""Leaving an organisation, which always keeps an owner."""

import asyncio
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import select, update

from services.auth.models import Membership, User
from services.auth.roles import ROLE_SCOPES
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, PASSWORD, Headers, actions_on
from tests.integration.auth.organisations.people import BOB, Person, assert_problem, sign_up


class TestLeaving:
    @pytest.mark.costly
    async def test_every_member_can_leave_with_any_token(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str, as_admin: Headers
    ) -> None:
        for role in ROLE_SCOPES:
            await ada.put(organisation, BOB, role)
            headers = await bob.acting_for(organisation, scope="usage:read")

            path = f"/organisations/{organisation}/members/{bob.id}"
            answer = await client.delete(path, headers=headers)

            assert answer.status_code == 204, role
            assert await ada.roles(organisation) == {ADA: "owner"}
        found = await actions_on(client, as_admin, f"{bob.id}@{organisation}")
        assert found == ["member_left", "member_added"] * len(ROLE_SCOPES)

    async def test_the_last_owner_cannot_leave_be_demoted_or_delete_their_user(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str
    ) -> None:
        await ada.put(organisation, BOB, "admin")

        answers = [
            await ada.remove(organisation, ada.id),
            await ada.put(organisation, ADA, "admin"),
            await bob.put(organisation, ADA, "viewer"),
            await bob.remove(organisation, ada.id),
            await client.delete("/users/me", headers=ada.headers),
        ]

        for answer in answers:
            assert_problem(answer, 409, "last_owner")
        assert await ada.roles(organisation) == {ADA: "owner", BOB: "admin"}

    async def test_a_disabled_owner_does_not_count(
        self, ada: Person, bob: Person, organisation: str, database: Database
    ) -> None:
        await ada.put(organisation, BOB, "owner")
        async with database.transaction() as session:
            disabled = update(User).where(User.id == bob.id).values(disabled_at=User.created_at)
            await session.execute(disabled)

        assert_problem(await ada.remove(organisation, ada.id), 409, "last_owner")

    async def test_putting_oneself_changes_nothing_and_mails_nobody(
        self, ada: Person, organisation: str
    ) -> None:
        answer = await ada.put(organisation, ADA, "owner")

        assert (answer.status_code, answer.json()["role"]) == (200, "owner")
        assert await ada.members(organisation) == {
            "members": [answer.json()],
            "invitations": [],
        }

    async def test_a_deleted_user_is_no_member_any_more(
        self,
        client: AsyncClient,
        ada: Person,
        bob: Person,
        organisation: str,
        as_admin: Headers,
    ) -> None:
        await ada.put(organisation, BOB, "owner")

        answer = await client.delete("/users/me", headers=ada.headers)

        assert answer.status_code == 204
        assert await bob.roles(organisation) == {BOB: "owner"}
        found = await actions_on(client, as_admin, f"{ada.id}@{organisation}")
        assert found == ["member_left"]

    async def test_the_export_names_the_organisations(
        self, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        exported = (await client.get("/users/me/export", headers=ada.headers)).json()

        [membership] = exported["organisations"]
        assert membership.pop("joined_at")
        assert membership == {"id": organisation, "name": "Analytical Engines", "role": "owner"}

    async def owners(self, database: Database) -> list[str]:
        async with database.snapshot() as session:
            owners = select(Membership.user_id).where(Membership.role == "owner")
            return list(await session.scalars(owners))

    @pytest.mark.parametrize("act", ["leave", "demote themselves", "demote each other", "delete"])
    async def test_of_all_owners_who_go_at_once_one_stays(
        self, client: AsyncClient, ada: Person, organisation: str, database: Database, act: str
    ) -> None:
        owners = [ada]
        for number in range(3):
            owners.append(await sign_up(client, f"owner{number}@example.com"))
            await ada.put(organisation, owners[-1].email, "owner")

        def go(number: int) -> Any:
            owner, next_one = owners[number], owners[(number + 1) % len(owners)]
            if act == "leave":
                return owner.remove(organisation, owner.id)
            if act == "delete":
                return client.delete("/users/me", headers=owner.headers)
            whom = owner if act == "demote themselves" else next_one
            return owner.put(organisation, whom.email, "viewer")

        answers = await asyncio.gather(*(go(number) for number in range(len(owners))))

        statuses = sorted(answer.status_code for answer in answers)
        assert set(statuses) <= {200, 204, 403, 409}
        left = await self.owners(database)
        assert len(left) == 4 - sum(status < 300 for status in statuses)
        assert left != []

    async def test_a_user_who_is_added_while_being_deleted_leaves_no_trace(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str
    ) -> None:
        deleted, added = await asyncio.gather(
            client.delete("/users/me", headers=bob.headers), ada.put(organisation, BOB, "owner")
        )

        assert (deleted.status_code, added.status_code) in {(204, 200), (204, 202)}
        assert await ada.roles(organisation) == {ADA: "owner"}
        again = await client.post("/register", json={"email": BOB, "password": PASSWORD})
        assert again.status_code == 201
