"""Organisations: who creates them, who belongs to them, and who may change that."""

import asyncio
import json
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from harness.waiting import eventually_async
from services.auth.models import QueuedMail
from services.auth.organisations import service
from services.auth.roles import ROLE_SCOPES
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, Headers, actions_on, count, mails_in, next_mail
from tests.integration.auth.organisations.people import (
    BOB,
    EVE,
    GRACE,
    NOBODY,
    Person,
    assert_problem,
    sign_up,
)

pytestmark = pytest.mark.any_database


class TestCreate:
    async def test_who_creates_an_organisation_owns_it(
        self, client: AsyncClient, ada: Person, as_admin: Headers
    ) -> None:
        answer = await client.post(
            "/organisations", json={"name": "  Engines, Ltd. "}, headers=ada.headers
        )

        created = answer.json()
        assert answer.status_code == 201
        assert created == {"id": created["id"], "name": "Engines, Ltd.", "role": "owner"}
        listed = await client.get("/organisations", headers=ada.headers)
        assert listed.json() == {"organisations": [created]}
        assert await ada.roles(created["id"]) == {ADA: "owner"}
        assert await actions_on(client, as_admin, created["id"]) == ["organisation_created"]

    async def test_invalid_names_are_rejected(self, client: AsyncClient, ada: Person) -> None:
        names = ["", "   ", "x" * 101, "a\nb", "a\0b", "\u202ea", "\ud800", None, 1]
        bodies: list[Any] = [
            {},
            [],
            {"name": "x", "id": NOBODY},
            *({"name": each} for each in names),
        ]
        headers = ada.headers | {"Content-Type": "application/json"}

        for body in bodies:
            content = json.dumps(body)
            answer = await client.post("/organisations", content=content, headers=headers)
            assert answer.status_code == 422, body

        assert await ada.own_roles() == {}

    async def test_a_user_has_a_limited_number(
        self, ada: Person, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "MAX_ORGANISATIONS", 1)
        await ada.create_organisation()

        answer = await client.post("/organisations", json={"name": "x"}, headers=ada.headers)

        assert_problem(answer, 409, "too_many_organisations")

    async def test_machine_clients_cannot_see_or_change_organisations(
        self, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        body = {"name": "job", "scope": "members:write"}
        created = (await client.post("/clients", json=body, headers=ada.headers)).json()
        form = {"grant_type": "client_credentials", "client_id": created["client_id"]}
        form["client_secret"] = created["client_secret"]
        token = (await client.post("/token", data=form)).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        members = f"/organisations/{organisation}/members"

        answers = [
            await client.get("/organisations", headers=headers),
            await client.post("/organisations", json={"name": "x"}, headers=headers),
            await client.get(members, headers=headers),
            await client.put(members, json={"email": BOB, "role": "viewer"}, headers=headers),
            await client.delete(f"{members}/{ada.id}", headers=headers),
            await client.post("/invitations/accept", json={"token": "x"}, headers=headers),
        ]

        for answer in answers:
            assert_problem(answer, 403, "login_needed")


class TestMembers:
    async def test_a_user_is_added_and_the_same_call_changes_the_role(
        self, app: FastAPI, ada: Person, bob: Person, organisation: str
    ) -> None:
        added = await ada.put(organisation, "BOB@example.com", "developer")
        await next_mail(app, to=BOB, subject="added to an organisation")
        changed = await ada.put(organisation, BOB, "billing")

        document = added.json()
        assert added.status_code == changed.status_code == 200
        assert (document["id"], document["email"]) == (bob.id, BOB)
        assert changed.json() == document | {"role": "billing"}
        assert await bob.roles(organisation) == {ADA: "owner", BOB: "billing"}
        assert await bob.own_roles() == {"Analytical Engines": "billing"}

    @pytest.mark.costly
    async def test_notices_do_not_flood_a_mailbox(
        self, app: FastAPI, ada: Person, bob: Person, organisation: str, database: Database
    ) -> None:
        for _ in range(7):
            assert (await ada.put(organisation, BOB, "viewer")).status_code == 200
            await ada.remove(organisation, bob.id)

        async def is_sent() -> bool:
            return await count(database, QueuedMail) == 0

        await eventually_async(is_sent)
        assert len(mails_in(app)) == 5

    async def test_every_act_is_recorded(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str, as_admin: Headers
    ) -> None:
        for role in ("developer", "viewer", "viewer"):
            await ada.put(organisation, BOB, role)
        await ada.remove(organisation, bob.id)

        found = await actions_on(client, as_admin, f"{bob.id}@{organisation}")
        assert found == ["member_removed", "member_role_changed", "member_added"]
        exported = (await client.get("/users/me/export", headers=bob.headers)).json()
        assert found[0] in {each["action"] for each in exported["audit"]}

    async def test_any_member_may_read_and_only_managers_may_change(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str
    ) -> None:
        for role, scopes in ROLE_SCOPES.items():
            await ada.put(organisation, BOB, role)
            as_member = await bob.acting_for(organisation)
            may_change = "members:write" in scopes
            path, body = f"/organisations/{organisation}/members", {"email": EVE, "role": "viewer"}

            read = await client.get(path, headers=as_member)
            by_token = await client.put(path, json=body, headers=as_member)
            by_person = await client.put(path, json=body, headers=bob.headers)
            removal = await client.delete(f"{path}/{NOBODY}", headers=as_member)

            assert read.status_code == 200
            assert by_token.status_code == by_person.status_code == (202 if may_change else 403)
            assert removal.status_code == (404 if may_change else 403)

    async def test_a_token_without_the_scope_cannot_manage_members(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str
    ) -> None:
        await ada.put(organisation, BOB, "viewer")
        narrow = await ada.acting_for(organisation, scope="usage:read")
        path = f"/organisations/{organisation}/members"

        put = await client.put(path, json={"email": BOB, "role": "admin"}, headers=narrow)
        removal = await client.delete(f"{path}/{bob.id}", headers=narrow)

        assert_problem(put, 403, "insufficient_scope")
        assert_problem(removal, 403, "insufficient_scope")

    async def test_only_owners_appoint_change_and_remove_owners(
        self, ada: Person, bob: Person, client: AsyncClient, organisation: str
    ) -> None:
        grace = await sign_up(client, GRACE)
        await ada.put(organisation, BOB, "admin")
        await ada.put(organisation, GRACE, "owner")

        refused = [
            await bob.put(organisation, BOB, "owner"),
            await bob.put(organisation, EVE, "owner"),
            await bob.put(organisation, GRACE, "viewer"),
            await bob.remove(organisation, grace.id),
        ]
        allowed = [await grace.put(organisation, ADA, "viewer")]

        for answer in refused:
            assert_problem(answer, 403, "owner_needed")
        assert [answer.status_code for answer in allowed] == [200]
        assert await bob.roles(organisation) == {ADA: "viewer", BOB: "admin", GRACE: "owner"}

    async def test_strangers_and_other_organisations_do_not_see_it(
        self, client: AsyncClient, ada: Person, bob: Person, organisation: str
    ) -> None:
        other = await bob.create_organisation("Other")
        await ada.put(organisation, BOB, "owner")
        as_other = await bob.acting_for(other)
        eve = await sign_up(client, EVE)

        answers = [
            await client.request(method, path, headers=headers, json=body)
            for headers, target in ((eve.headers, organisation), (as_other, organisation))
            for method, path, body in (
                ("GET", f"/organisations/{target}/members", None),
                ("PUT", f"/organisations/{target}/members", {"email": EVE, "role": "owner"}),
                ("PUT", f"/organisations/{target}/members", {"role": "unknown"}),
                ("DELETE", f"/organisations/{target}/members/{ada.id}", None),
            )
        ]

        assert [answer.status_code for answer in answers] == [404] * 8
        assert await ada.roles(organisation) == {ADA: "owner", BOB: "owner"}

    async def test_an_id_that_does_not_exist_is_404(
        self, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        for id in (NOBODY, "x", "é", "%00", "x" * 300, "' OR 1=1"):
            answers = [
                await client.get(f"/organisations/{id}/members", headers=ada.headers),
                await ada.put(id, BOB, "viewer"),
                await ada.remove(id, ada.id),
                await ada.remove(organisation, id),
            ]
            assert [answer.status_code for answer in answers] == [404] * 4, id

    async def test_a_personal_account_has_no_members(self, ada: Person) -> None:
        assert (await ada.put(ada.id, BOB, "viewer")).status_code == 404

    async def test_invalid_input_is_422(
        self, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        cases: list[tuple[Any, str]] = [
            ({"email": BOB}, "role"),
            ({"role": "viewer"}, "email"),
            ({"email": BOB, "role": "king"}, "role"),
            ({"email": BOB, "role": "Owner"}, "role"),
            ({"email": BOB, "role": ["owner"]}, "role"),
            ({"email": "nonsense", "role": "viewer"}, "email"),
            ({"email": "", "role": "viewer"}, "email"),
            ({"email": "x" * 1001, "role": "viewer"}, "email"),
            ({"email": BOB, "role": "viewer", "id": NOBODY}, "id"),
        ]

        for body, field in cases:
            path = f"/organisations/{organisation}/members"
            answer = await client.put(path, json=body, headers=ada.headers)
            assert answer.status_code == 422, body
            assert answer.json()["errors"][0]["loc"][:2] == ["body", field]

    async def test_an_organisation_has_a_limited_number(
        self, ada: Person, bob: Person, organisation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "MAX_MEMBERS", 2)
        first = await ada.put(organisation, EVE, "viewer")

        answer = await ada.put(organisation, BOB, "viewer")

        assert first.status_code == 202
        assert_problem(answer, 409, "too_many_members")

    @pytest.mark.every_database
    async def test_of_concurrent_additions_all_succeed_and_one_counts(
        self, ada: Person, bob: Person, organisation: str
    ) -> None:
        answers = await asyncio.gather(*(ada.put(organisation, BOB, "viewer") for _ in range(5)))

        assert [answer.status_code for answer in answers] == [200] * 5
        assert await ada.roles(organisation) == {ADA: "owner", BOB: "viewer"}
