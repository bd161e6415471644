"""Changing a password, and resetting a forgotten one."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import update

from harness.waiting import eventually_async
from services.auth.models import OneTimeLink, QueuedMail, RefreshFamily, User
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADA,
    NEW_PASSWORD,
    PASSWORD,
    Headers,
    SignIn,
    assert_refused,
    bearer,
    count,
    mails_in,
    next_mail,
    revoked,
    token_in,
)

pytestmark = pytest.mark.any_database


async def change(
    client: AsyncClient, headers: Headers, current: str = PASSWORD, new: str = NEW_PASSWORD
) -> httpx.Response:
    body = {"current": current, "new": new}
    return await client.post("/users/me/password", json=body, headers=headers)


async def request_reset(app: FastAPI, client: AsyncClient, email: str = ADA) -> str:
    answer = await client.post("/password-reset", json={"email": email})
    assert answer.status_code == 202
    return token_in(await next_mail(app, to=ADA, subject="Reset your password"))


async def confirm_reset(
    client: AsyncClient, token: str, password: str = NEW_PASSWORD
) -> httpx.Response:
    body = {"token": token, "password": password}
    return await client.post("/password-reset/confirm", json=body)


@pytest.fixture
async def assert_signed_out(
    client: AsyncClient, ada: dict[str, str], as_ada: Headers, sign_in: SignIn, database: Database
) -> Callable[[], Awaitable[None]]:
    """Sign Ada in twice; `await assert_signed_out()` checks that both sign-ins have ended."""
    refresh_token = (await sign_in()).json()["refresh_token"]
    refresh = {"grant_type": "refresh_token", "refresh_token": refresh_token}

    async def check() -> None:
        assert (await client.get("/users/me", headers=as_ada)).status_code == 401
        assert await revoked(database) == [("user", ada["id"])]
        assert_refused(await client.post("/token", data=refresh), "invalid_grant")

    return check


class TestPassword:
    async def test_a_new_password_replaces_the_old_one_and_ends_all_sign_ins(
        self,
        app: FastAPI,
        client: AsyncClient,
        as_ada: Headers,
        sign_in: SignIn,
        assert_signed_out: Callable[[], Awaitable[None]],
    ) -> None:
        answer = await change(client, as_ada)

        assert answer.status_code == 204
        assert (await sign_in()).status_code == 400
        new = (await sign_in(password=NEW_PASSWORD)).json()["access_token"]
        assert (await client.get("/users/me", headers=bearer(new))).status_code == 200
        await assert_signed_out()
        await next_mail(app, to=ADA, subject="password was changed")

    async def test_the_current_password_must_be_right(
        self, client: AsyncClient, as_ada: Headers, sign_in: SignIn
    ) -> None:
        answer = await change(client, as_ada, current="wrong password")

        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:tollgate:problem:wrong_password"
        assert (await sign_in()).status_code == 200

    @pytest.mark.every_database
    async def test_a_sign_in_with_the_old_password_does_not_outlive_a_change_meanwhile(
        self,
        app: FastAPI,
        client: AsyncClient,
        as_ada: Headers,
        sign_in: SignIn,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        verify = app.state.hasher.verify

        async def verify_slowly(password: str, stored: str | None) -> bool:
            matches: bool = await verify(password, stored)
            monkeypatch.undo()
            assert (await change(client, as_ada)).status_code == 204
            return matches

        monkeypatch.setattr(app.state.hasher, "verify", verify_slowly)

        answer = await sign_in()

        assert_refused(answer, "invalid_grant")
        assert await count(database, RefreshFamily) == 0

    async def test_guesses_count_like_failed_sign_ins(
        self, client: AsyncClient, as_ada: Headers, sign_in: SignIn
    ) -> None:
        answers = [await change(client, as_ada, current=f"guess {n}") for n in range(11)]
        right = await change(client, as_ada)

        assert [each.status_code for each in answers] == [403] * 10 + [429]
        assert (right.status_code, (await sign_in()).status_code) == (429, 429)
        assert int(right.headers["Retry-After"]) > 0

    async def test_a_bad_new_password_is_rejected_and_not_repeated(
        self, client: AsyncClient, as_ada: Headers
    ) -> None:
        answer = await change(client, as_ada, new="short")

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["body", "new"]
        assert "short" not in answer.text.replace("too short", "")


class TestReset:
    async def test_a_link_sets_a_new_password_once_and_ends_all_sign_ins(
        self,
        app: FastAPI,
        client: AsyncClient,
        sign_in: SignIn,
        assert_signed_out: Callable[[], Awaitable[None]],
    ) -> None:
        token = await request_reset(app, client, " ADA@Example.com ")

        answers = [await confirm_reset(client, token) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [204, 400]
        assert answers[1].json()["type"] == "urn:tollgate:problem:invalid_link"
        assert (await sign_in()).status_code == 400
        assert (await sign_in(password=NEW_PASSWORD)).status_code == 200
        await assert_signed_out()

    @pytest.mark.every_database
    async def test_concurrent_uses_of_a_link_succeed_once(
        self, app: FastAPI, client: AsyncClient, ada: dict[str, str]
    ) -> None:
        token = await request_reset(app, client)

        answers = await asyncio.gather(
            *(confirm_reset(client, token, f"{NEW_PASSWORD} {n}") for n in range(5))
        )

        assert sorted(answer.status_code for answer in answers) == [204, 400, 400, 400, 400]

    async def test_using_one_link_cancels_the_others(
        self, app: FastAPI, client: AsyncClient, ada: dict[str, str]
    ) -> None:
        first = await request_reset(app, client)
        second = await request_reset(app, client)

        assert (await confirm_reset(client, second)).status_code == 204
        assert (await confirm_reset(client, first)).status_code == 400

    async def test_an_expired_forged_or_foreign_link_is_refused(
        self,
        app: FastAPI,
        client: AsyncClient,
        ada: dict[str, str],
        as_ada: Headers,
        database: Database,
        sign_in: SignIn,
    ) -> None:
        await client.patch("/users/me", json={"email": ADA}, headers=as_ada)
        other_purpose = token_in(await next_mail(app, to=ADA, subject="Confirm"))
        expired = await request_reset(app, client)
        async with database.transaction() as session:
            past = datetime.now(UTC) - timedelta(seconds=1)
            await session.execute(
                update(OneTimeLink)
                .where(OneTimeLink.purpose == "reset_password")
                .values(expires_at=past)
            )

        for token in (expired, other_purpose, "x" * 43, "", "é", "0"):
            assert (await confirm_reset(client, token)).status_code == 400
        assert (await sign_in()).status_code == 200

    async def test_a_bad_password_does_not_use_up_the_link(
        self, app: FastAPI, client: AsyncClient, ada: dict[str, str]
    ) -> None:
        token = await request_reset(app, client)

        assert (await confirm_reset(client, token, "short")).status_code == 422
        assert (await confirm_reset(client, token)).status_code == 204

    async def test_a_disabled_user_gets_no_link(
        self, app: FastAPI, client: AsyncClient, ada: dict[str, str], database: Database
    ) -> None:
        token = await request_reset(app, client)
        async with database.transaction() as session:
            await session.execute(update(User).values(disabled_at=datetime.now(UTC)))

        assert (await confirm_reset(client, token)).status_code == 400

    async def test_known_and_unknown_emails_do_the_same_on_the_request(
        self, client: AsyncClient, ada: dict[str, str], database: Database
    ) -> None:
        answers = [
            await client.post("/password-reset", json={"email": email})
            for email in (ADA, "nobody@example.com", "nonsense")
        ]

        assert {(each.status_code, each.text) for each in answers} == {
            (202, '{"status":"accepted"}')
        }

    async def test_an_unknown_email_gets_no_mail(
        self, app: FastAPI, client: AsyncClient, ada: dict[str, str], database: Database
    ) -> None:
        await client.post("/password-reset", json={"email": "nobody@example.com"})
        await request_reset(app, client)  # is sent after the other

        async def queue_is_empty() -> bool:
            return await count(database, QueuedMail) == 0

        assert mails_in(app) == []
        await eventually_async(queue_is_empty)

    @pytest.mark.every_database
    async def test_only_the_stored_spelling_gets_the_mail(
        self, app: FastAPI, client: AsyncClient, ada: dict[str, str], database: Database
    ) -> None:
        async with database.transaction() as session:
            await session.execute(
                update(User).values(email="ada@strasse.de", folded_email="ada@strasse.de")
            )

        await client.post("/password-reset", json={"email": "ada@straße.de"})

        await next_mail(app, to="ada@strasse.de", subject="Reset your password")
