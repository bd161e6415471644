"""Invitations: who may join an organisation, by a link in a mail to one address."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import update

from harness.statements import noted_statements
from harness.waiting import eventually_async
from services.auth.mail.queue import Kind, queue_mail
from services.auth.models import Invitation, OneTimeLink, QueuedMail
from services.auth.tokens.service import delete_expired
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADA,
    Headers,
    OpenApp,
    actions_on,
    browse,
    confirm_addresses,
    count,
    mails_in,
    next_mail,
    token_in,
)
from tests.integration.auth.organisations.invitations import accept, bobs_mail, invite, register
from tests.integration.auth.organisations.people import (
    BOB,
    EVE,
    Person,
    assert_problem,
    claims_in,
    sign_up,
    signed_in,
)

MANY, WITHDRAWN = "many@example.com", "withdrawn@example.com"
"""Addresses of their own, because what is left to send may be sent during the next test."""


class TestJoining:
    async def test_an_unknown_address_is_invited_and_joins_by_registering(
        self, app: FastAPI, client: AsyncClient, ada: Person, organisation: str, as_admin: Headers
    ) -> None:
        answer = await ada.put(organisation, "Bob@Example.com", "developer")
        mail = await bobs_mail(app)
        listed = await ada.members(organisation)

        invited = answer.json()
        assert answer.status_code == 202
        assert (invited["email"], invited["role"]) == (BOB, "developer")
        assert listed["invitations"] == [invited]
        assert "Analytical Engines" in mail.as_string()
        assert await register(client, token_in(mail)) == 201
        bob = await signed_in(client, BOB)
        assert await ada.roles(organisation) == {ADA: "owner", BOB: "developer"}
        assert (await ada.members(organisation))["invitations"] == []
        answer = await bob.sign_in(organisation)
        assert claims_in(answer)["sub"] == organisation
        joined = await actions_on(client, as_admin, f"{bob.id}@{organisation}")
        sent = await actions_on(client, as_admin, f"{invited['id']}@{organisation}")
        assert (joined, sent) == (["member_joined"], ["member_invited"])

    async def test_someone_who_registered_meanwhile_joins_with_a_sign_in(
        self, app: FastAPI, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        token = await invite(app, ada, organisation)
        bob = await sign_up(client, BOB)

        answers = [await accept(bob, token) for _ in range(2)]

        joined = {"id": organisation, "name": "Analytical Engines", "role": "developer"}
        assert (answers[0].status_code, answers[0].json()) == (200, joined)
        assert_problem(answers[1], 400, "invalid_link")
        verified = (await client.get("/userinfo", headers=bob.headers)).json()["email_verified"]
        assert verified is True

    async def test_another_invitation_changes_the_role_and_the_first_link_works_once(
        self, app: FastAPI, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        tokens = [await invite(app, ada, organisation, role) for role in ("admin", "viewer")]
        bob = await sign_up(client, BOB)

        answers = [await accept(bob, token) for token in tokens]

        assert [answer.status_code for answer in answers] == [200, 400]
        assert await ada.roles(organisation) == {ADA: "owner", BOB: "viewer"}

    async def test_of_concurrent_acceptances_one_counts(
        self, app: FastAPI, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        token = await invite(app, ada, organisation)
        bob = await sign_up(client, BOB)

        answers = await asyncio.gather(*(accept(bob, token) for _ in range(5)))

        assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400]

    async def test_a_member_who_accepts_another_invitation_keeps_the_role(
        self, app: FastAPI, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        bob = await sign_up(client, "robert@example.com")
        await ada.put(organisation, bob.email, "viewer")
        token = await invite(app, ada, organisation, "admin")
        await client.patch("/users/me", json={"email": BOB}, headers=bob.headers)

        answer = await accept(bob, token)

        assert (answer.status_code, answer.json()["role"]) == (200, "viewer")


@pytest.mark.any_database
class TestRefusals:
    async def test_an_invitation_is_for_its_address_only(
        self, app: FastAPI, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        token = await invite(app, ada, organisation)
        eve = await sign_up(client, EVE)

        assert_problem(await accept(eve, token), 400, "invalid_link")
        assert_problem(await accept(ada, token), 400, "invalid_link")
        assert await register(client, token, "mallory@example.com") == 400
        assert await register(client, token) == 201  # nothing of this used it up

    @pytest.mark.parametrize("end", ["withdrawn", "expired", "link expired", "deleted"])
    async def test_an_invitation_that_has_ended_is_refused_everywhere(
        self,
        app: FastAPI,
        client: AsyncClient,
        ada: Person,
        organisation: str,
        database: Database,
        end: str,
    ) -> None:
        token = await invite(app, ada, organisation)
        bob = await sign_up(client, BOB)
        await confirm_addresses(database)
        if end == "withdrawn":
            [invited] = (await ada.members(organisation))["invitations"]
            removals = [await ada.remove(organisation, invited["id"]) for _ in range(2)]
            assert [answer.status_code for answer in removals] == [204, 404]
        else:
            table = OneTimeLink if end == "link expired" else Invitation
            async with database.transaction() as session:
                await session.execute(update(table).values(expires_at=datetime.now(UTC)))
        if end == "deleted":
            await delete_expired(database)

        answer = await accept(bob, token)
        shown = await client.get("/invitations/accept", params={"token": token})
        sent = await client.post("/invitations/accept/page", data={"token": token})

        assert_problem(answer, 400, "invalid_link")
        assert [shown.status_code, sent.status_code] == [400, 400]
        assert await ada.roles(organisation) == {ADA: "owner"}

    async def test_a_token_that_does_not_exist_is_refused(self, ada: Person) -> None:
        for token in ("", "x", "é", "\0", "x" * 200):
            assert_problem(await accept(ada, token), 400, "invalid_link")

    async def test_invalid_input_is_422(self, client: AsyncClient, ada: Person) -> None:
        bodies: list[dict[str, Any]] = [{}, {"token": None}, {"token": "x" * 201}, {"code": "x"}]
        for body in bodies:
            answer = await client.post("/invitations/accept", json=body, headers=ada.headers)
            assert answer.status_code == 422, body

    async def test_links_of_other_purposes_do_not_join(
        self, app: FastAPI, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        await client.post("/password-reset", json={"email": ADA})
        reset = token_in(await next_mail(app, to=ADA, subject="Reset"))
        joining = await invite(app, ada, organisation)

        misused = await client.post("/verify-email", json={"token": joining})

        assert_problem(await accept(ada, reset), 400, "invalid_link")
        assert_problem(misused, 400, "invalid_link")

    async def test_one_who_leaves_cannot_return_by_an_older_link(
        self, app: FastAPI, client: AsyncClient, ada: Person, organisation: str
    ) -> None:
        tokens = [await invite(app, ada, organisation) for _ in range(2)]
        bob = await sign_up(client, BOB)
        await accept(bob, tokens[0])
        await bob.remove(organisation, bob.id)

        assert_problem(await accept(bob, tokens[1]), 400, "invalid_link")

    async def test_a_rejected_link_is_recorded(
        self, client: AsyncClient, ada: Person, as_admin: Headers
    ) -> None:
        await accept(ada, "x")

        entries = (await client.get("/audit", headers=as_admin)).json()["entries"]
        rejected = [each["actor"] for each in entries if each["action"] == "link_rejected"]
        assert rejected == [ada.id]

    async def test_invitations_to_one_address_are_limited(
        self, ada: Person, organisation: str
    ) -> None:
        answers = [await ada.put(organisation, MANY, "viewer") for _ in range(6)]

        assert [answer.status_code for answer in answers] == [202] * 5 + [429]
        assert "Retry-After" in answers[-1].headers

    async def test_a_withdrawn_invitation_is_not_mailed(
        self, app: FastAPI, ada: Person, organisation: str, database: Database
    ) -> None:
        async with database.transaction() as session:  # as if it was withdrawn in the meantime
            await queue_mail(session, Kind.JOIN, email=WITHDRAWN, organisation_id=organisation)

        async def is_handled() -> bool:
            return await count(database, QueuedMail) == 0

        await eventually_async(is_handled)

        assert not any(WITHDRAWN.encode() in mail.read_bytes() for mail in mails_in(app))


class TestSecrecy:
    """Where registration does not show which addresses have a user, invitations do not either."""

    @pytest.fixture(params=["verify", "invite"])
    async def secret_app(
        self, request: pytest.FixtureRequest, app: FastAPI, open_app: OpenApp
    ) -> AsyncIterator[FastAPI]:
        async with open_app(registration=request.param) as opened:
            yield opened

    @pytest.mark.costly
    async def test_known_and_unknown_addresses_are_invited_alike(
        self, client: AsyncClient, ada: Person, organisation: str, secret_app: FastAPI
    ) -> None:
        bob = await sign_up(client, BOB)
        statements, answers = [], []
        async with browse(secret_app) as secretive:
            for email in (BOB, EVE):
                with noted_statements(secret_app.state.database) as noted:
                    answers.append(
                        await secretive.put(
                            f"/organisations/{organisation}/members",
                            json={"email": email, "role": "viewer"},
                            headers=ada.headers,
                        )
                    )
                statements.append([statement.sql for statement in noted])

        assert [answer.status_code for answer in answers] == [202, 202]
        assert [set(answer.json()) for answer in answers] == [set(answers[0].json())] * 2
        assert statements[0] == statements[1]
        assert await ada.roles(organisation) == {ADA: "owner"}
        token = token_in(await next_mail(secret_app, to=BOB, subject="invited"))
        assert (await accept(bob, token)).status_code == 200
