"""Where registration is by mail, a link completes it; nothing shows whether an address is taken."""

from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx
import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.models import User
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADA,
    PASSWORD,
    OpenApp,
    SignIn,
    bearer,
    browse,
    count,
    next_mail,
    token_in,
)


class TestVerifiedRegistration:
    async def register(self, client: AsyncClient, email: str = ADA) -> httpx.Response:
        return await client.post("/register", json={"email": email, "password": PASSWORD})

    async def test_the_link_creates_the_user(
        self, app: FastAPI, open_app: OpenApp, sign_in: SignIn, database: Database
    ) -> None:
        async with open_app(registration="verify") as verifying, browse(verifying) as client:
            answer = await self.register(client, "Ada@Example.com")
            before = (await sign_in()).status_code, await count(database, User)
            mail = await next_mail(verifying, to=ADA, subject="Confirm")
            used = [
                (await client.post("/verify-email", json={"token": token_in(mail)})).status_code
                for _ in range(2)
            ]

        assert (answer.status_code, before, used) == (202, (400, 0), [204, 400])
        token = (await sign_in()).json()["access_token"]
        async with browse(app) as client:
            assert (await client.get("/userinfo", headers=bearer(token))).json()["email_verified"]

    @pytest.mark.any_database
    async def test_a_taken_email_gets_the_same_response_and_another_mail(
        self, ada: dict[str, str], open_app: OpenApp, database: Database
    ) -> None:
        async with open_app(registration="verify") as verifying, browse(verifying) as client:
            answers = [await self.register(client, email) for email in (ADA, "bob@example.com")]
            await next_mail(verifying, to=ADA, subject="already registered")

        assert [answer.status_code for answer in answers] == [202, 202]
        assert answers[0].text == answers[1].text
        assert await count(database, User) == 1

    @pytest.mark.costly
    @pytest.mark.any_database
    async def test_both_mails_name_the_time_and_the_address_of_the_request(
        self, ada: dict[str, str], open_app: OpenApp
    ) -> None:
        async with (
            open_app(registration="verify") as verifying,
            browse(verifying, address="203.0.113.7") as client,
        ):
            mails = []
            for email, subject in ((ADA, "already registered"), ("bob@example.com", "Confirm")):
                await self.register(client, email)
                mails.append(await next_mail(verifying, to=email, subject=subject))

        for mail in mails:
            sent = parsedate_to_datetime(mail["Date"]).astimezone(UTC)
            line = f"on {sent.day} {sent:%B %Y at %H:%M} UTC from 203.0.113.7."
            bodies = [mail.get_body((kind,)) for kind in ("plain", "html")]
            assert all(body is not None and line in body.get_content() for body in bodies)

    @pytest.mark.costly
    async def test_the_first_of_two_links_for_an_email_wins(
        self, app: FastAPI, open_app: OpenApp, database: Database
    ) -> None:
        async with open_app(registration="verify") as verifying, browse(verifying) as client:
            tokens = []
            for _ in range(2):
                await self.register(client)
                tokens.append(token_in(await next_mail(verifying, to=ADA, subject="Confirm")))
            answers = [await client.post("/verify-email", json={"token": each}) for each in tokens]

        assert [answer.status_code for answer in answers] == [204, 409]
        assert await count(database, User) == 1
