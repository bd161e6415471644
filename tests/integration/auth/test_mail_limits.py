"""Limits on the mails that strangers can cause."""

from contextvars import ContextVar

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from harness.statements import noted_statements
from tests.integration.auth.conftest import ADA, PASSWORD, OpenApp, SignIn, browse
from tests.integration.auth.pages import send

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)
"""Set while a test sends a request, but not in the background tasks of the app."""


class TestMailLimits:
    """Mails that strangers can cause: five in an hour, otherwise limited like guesses."""

    async def request(self, client: AsyncClient, email: str = ADA) -> int:
        return (await client.post("/password-reset", json={"email": email})).status_code

    @pytest.mark.parametrize("email", [ADA, "nobody@example.com"])
    async def test_five_mails_to_one_address_are_allowed_whether_or_not_it_has_a_user(
        self, ada: dict[str, str], client: AsyncClient, email: str
    ) -> None:
        answers = [await self.request(client, email) for _ in range(7)]

        assert answers == [202] * 5 + [429] * 2

    async def test_sign_ins_and_other_callers_are_not_affected(
        self, ada: dict[str, str], app: FastAPI, client: AsyncClient, sign_in: SignIn
    ) -> None:
        for _ in range(6):
            await self.request(client)

        async with browse(app, address="203.0.113.1") as elsewhere:
            assert await self.request(elsewhere) == 202
        assert (await sign_in()).status_code == 200

    @pytest.mark.any_database
    async def test_registrations_by_mail_are_limited_too(
        self, ada: dict[str, str], app: FastAPI, open_app: OpenApp
    ) -> None:
        async with open_app(registration="verify") as verifying, browse(verifying) as client:
            body = {"email": ADA, "password": PASSWORD}
            answers = [await client.post("/register", json=body) for _ in range(6)]

        assert [answer.status_code for answer in answers] == [202] * 5 + [429]
        assert answers[-1].json()["type"] == "urn:tollgate:problem:too_many_attempts"

    async def test_known_and_unknown_addresses_cost_the_same_statements(
        self, ada: dict[str, str], app: FastAPI, open_app: OpenApp
    ) -> None:
        async with open_app(registration="verify") as verifying, browse(verifying) as client:
            costs = []
            for email in (ADA, "nobody@example.com"):
                with noted_statements(
                    verifying.state.database, lambda _: current_request.get() is not None
                ) as noted:
                    reset = current_request.set("reset")
                    await self.request(client, email)
                    await client.post("/register", json={"email": email, "password": PASSWORD})
                    await send(client, await client.get("/password-reset"), email=email)
                    current_request.reset(reset)
                costs.append([statement.sql for statement in noted])

        assert costs[0] == costs[1]
        assert len(costs[0]) >= 6
