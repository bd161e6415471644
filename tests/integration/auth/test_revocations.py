"""What auth revokes, and how the other services learn of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import func, select

from services.auth.clients.credentials import ensure_service_client
from services.auth.models import Revocation
from services.auth.passwords import PasswordHasher
from services.auth.revocations import router, service
from services.auth.revocations.service import delete_expired_revocations, publish
from services.auth.users.service import ensure_user, set_disabled
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    CHEAP_KIB,
    PASSWORD,
    Headers,
    OpenApp,
    SignIn,
    bearer,
    browse,
)

EMAIL = "ada@example.com"
NEW_PASSWORD = "another horse battery"


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer at once if nothing was revoked."""
    monkeypatch.setattr(router, "WAIT_S", 0.0)
    monkeypatch.setattr(service, "LOOK_EVERY_S", 0.02)


@pytest.fixture
async def as_service(client: AsyncClient, inference: tuple[str, str]) -> Headers:
    form = {"grant_type": "client_credentials"}
    answer = await client.post("/token", data=form, auth=inference)
    return bearer(answer.json()["access_token"])


@pytest.fixture
async def hasher() -> AsyncIterator[PasswordHasher]:
    opened = PasswordHasher(threads=1, memory_kib=CHEAP_KIB)
    yield opened
    opened.close()


async def read(client: AsyncClient, headers: Headers, after: int = 0) -> dict[str, Any]:
    answer = await client.get("/revocations", params={"after": after}, headers=headers)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def named(page: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["kind"], each["id"]) for each in page["revocations"]]


class TestActs:
    async def test_disabling_a_user_revokes_the_user_and_the_account(
        self,
        client: AsyncClient,
        ada: dict[str, str],
        as_service: Headers,
        database: Database,
    ) -> None:
        async with database.transaction() as session:
            await set_disabled(session, email=EMAIL, disabled=True)

        assert named(await read(client, as_service)) == [
            ("user", ada["id"]),
            ("account", ada["id"]),
        ]

    async def test_changing_a_password_revokes_the_user(
        self,
        client: AsyncClient,
        ada: dict[str, str],
        as_service: Headers,
        database: Database,
        hasher: PasswordHasher,
    ) -> None:
        for password in (PASSWORD, NEW_PASSWORD):
            async with database.transaction() as session:
                await ensure_user(
                    session, hasher=hasher, email=EMAIL, password=password, admin=False
                )

        assert named(await read(client, as_service)) == [("user", ada["id"])]

    async def test_deleting_a_client_revokes_it(
        self, client: AsyncClient, as_ada: Headers, as_service: Headers
    ) -> None:
        own = (await client.post("/clients", json={"name": "x"}, headers=as_ada)).json()

        await client.delete(f"/clients/{own['client_id']}", headers=as_ada)
        await client.delete(f"/clients/{own['client_id']}", headers=as_ada)

        assert named(await read(client, as_service)) == [("client", own["client_id"])]

    async def test_changing_the_secret_of_a_service_revokes_its_tokens(
        self,
        client: AsyncClient,
        inference: tuple[str, str],
        as_service: Headers,
        database: Database,
    ) -> None:
        for secret in (inference[1], "another"):
            async with database.transaction() as session:
                await ensure_service_client(
                    session, client_id=inference[0], client_secret=secret, scope="billing:write"
                )

        assert (await client.get("/revocations", headers=as_service)).status_code == 401
        form = {"grant_type": "client_credentials"}
        new = await client.post("/token", data=form, auth=(inference[0], "another"))
        headers = bearer(new.json()["access_token"])
        assert named(await read(client, headers)) == [("client", inference[0])]

    async def test_deleting_and_rotating_a_key_revokes_it(
        self, client: AsyncClient, as_ada: Headers, as_service: Headers
    ) -> None:
        keys = [
            (await client.post("/api-keys", json={"name": "x"}, headers=as_ada)).json()["id"]
            for _ in range(3)
        ]

        await client.delete(f"/api-keys/{keys[0]}", headers=as_ada)
        await client.post(f"/api-keys/{keys[1]}/rotate", headers=as_ada)
        body = {"overlap_seconds": 60}
        await client.post(f"/api-keys/{keys[2]}/rotate", json=body, headers=as_ada)

        assert named(await read(client, as_service)) == [("api_key", key) for key in keys]

    async def test_revoking_a_token_names_only_it_until_it_expires(
        self, client: AsyncClient, as_ada: Headers, as_service: Headers
    ) -> None:
        token = as_ada["Authorization"].removeprefix("Bearer ")

        for each in (token, token, "a.b.c", token[:-2] + "xx"):
            answer = await client.post("/revoke", data={"token": each})
            assert answer.status_code == 200

        page = await read(client, as_service)
        claims = jwt.get_unverified_claims(token)
        assert set(named(page)) == {("jti", claims["jti"])}
        until = datetime.fromisoformat(page["revocations"][0]["until"])
        assert until.timestamp() == claims["exp"]

    async def test_a_refused_act_revokes_nothing(
        self, client: AsyncClient, as_ada: Headers, as_service: Headers
    ) -> None:
        await client.delete("/api-keys/unknown", headers=as_ada)
        await client.delete("/clients/unknown", headers=as_ada)

        assert await read(client, as_service) == {"last": 0, "revocations": []}


class TestAfterwards:
    async def test_auth_refuses_the_old_tokens_and_accepts_new_ones_at_once(
        self,
        client: AsyncClient,
        as_ada: Headers,
        sign_in: SignIn,
        database: Database,
        hasher: PasswordHasher,
    ) -> None:
        async with database.transaction() as session:
            await ensure_user(
                session, hasher=hasher, email=EMAIL, password=NEW_PASSWORD, admin=False
            )

        new = (await sign_in(password=NEW_PASSWORD)).json()["access_token"]

        assert (await client.get("/users/me", headers=as_ada)).status_code == 401
        assert (await client.get("/users/me", headers=bearer(new))).status_code == 200

    async def test_a_new_token_is_not_among_those_revoked(
        self,
        client: AsyncClient,
        ada: dict[str, str],
        sign_in: SignIn,
        as_service: Headers,
        database: Database,
    ) -> None:
        old = jwt.get_unverified_claims((await sign_in()).json()["access_token"])
        for disabled in (True, False):
            async with database.transaction() as session:
                await set_disabled(session, email=EMAIL, disabled=disabled)

        new = jwt.get_unverified_claims((await sign_in()).json()["access_token"])

        for each in (await read(client, as_service))["revocations"]:
            issued_before = datetime.fromisoformat(each["issued_before"]).timestamp()
            assert old["iat"] < issued_before <= new["iat"]

    async def test_a_clients_token_from_before_is_refused_once_its_owner_is_enabled_again(
        self, client: AsyncClient, as_ada: Headers, database: Database, sign_in: SignIn
    ) -> None:
        own = (await client.post("/clients", json={"name": "x"}, headers=as_ada)).json()
        credentials = (own["client_id"], own["client_secret"])
        form = {"grant_type": "client_credentials"}
        old = (await client.post("/token", data=form, auth=credentials)).json()["access_token"]
        for disabled in (True, False):
            async with database.transaction() as session:
                await set_disabled(session, email=EMAIL, disabled=disabled)

        new = (await client.post("/token", data=form, auth=credentials)).json()["access_token"]

        assert (await client.get("/users/me", headers=bearer(old))).status_code == 401
        assert (await client.get("/users/me", headers=bearer(new))).status_code == 200


class TestFeed:
    async def test_it_continues_after_a_number(
        self, client: AsyncClient, as_service: Headers, database: Database
    ) -> None:
        for n in range(3):
            async with database.transaction() as session:
                await publish(session, ("jti", f"token-{n}"))

        assert named(await read(client, as_service, after=1)) == [
            ("jti", "token-1"),
            ("jti", "token-2"),
        ]
        assert await read(client, as_service, after=3) == {"last": 3, "revocations": []}

    async def test_many_come_in_pages(
        self,
        client: AsyncClient,
        as_service: Headers,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(service, "PAGE", 3)
        async with database.transaction() as session:
            await publish(session, *(("jti", f"token-{n}") for n in range(7)))

        after, read_so_far = 0, []
        for _ in range(4):
            page = await read(client, as_service, after=after)
            after = page["last"]
            read_so_far += [id for _, id in named(page)]

        assert read_so_far == [f"token-{n}" for n in range(7)]
        assert after == 7

    async def test_a_number_from_before_a_restored_backup_begins_anew(
        self, client: AsyncClient, as_service: Headers, database: Database
    ) -> None:
        async with database.transaction() as session:
            await publish(session, ("jti", "token-1"))

        page = await read(client, as_service, after=1_000)

        assert page["last"] == 1
        assert named(page) == [("jti", "token-1")]

    @pytest.mark.costly
    async def test_it_waits_for_what_another_process_revokes(
        self,
        open_app: OpenApp,
        client: AsyncClient,
        as_service: Headers,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(router, "WAIT_S", 60.0)
        async with open_app() as other, browse(other) as elsewhere:
            waiting = [asyncio.create_task(read(elsewhere, as_service)) for _ in range(5)]
            await asyncio.sleep(0.05)
            still_waiting = not any(task.done() for task in waiting)
            async with database.transaction() as session:
                await publish(session, ("jti", "token-1"))

            pages = await asyncio.gather(*waiting)

        assert still_waiting
        assert [named(page) for page in pages] == [[("jti", "token-1")]] * 5

    @pytest.mark.costly
    async def test_concurrent_revocations_are_all_read_by_one_who_reads_meanwhile(
        self, client: AsyncClient, as_service: Headers, database: Database
    ) -> None:
        async def revoke(number: int) -> None:
            async with database.transaction() as session:
                await publish(session, ("jti", f"token-{number}"))
                await asyncio.sleep(0.001 * (number % 3))

        revoking = asyncio.gather(*(revoke(number) for number in range(30)))
        after, found = 0, []
        for _ in range(1000):
            page = await read(client, as_service, after=after)
            after = page["last"]
            found += named(page)
            if len(found) == 30:
                break
        await revoking

        assert len(set(found)) == 30
        assert after == 30

    async def test_expired_revocations_are_deleted_and_their_numbers_not_used_again(
        self, client: AsyncClient, as_service: Headers, database: Database
    ) -> None:
        now = datetime.now(UTC)
        async with database.transaction() as session:
            await publish(session, ("jti", "old"), until=now + timedelta(milliseconds=1))
        await asyncio.sleep(0.01)
        async with database.transaction() as session:
            await delete_expired_revocations(session, now=datetime.now(UTC))
            left = await session.scalar(select(func.count()).select_from(Revocation))
            await publish(session, ("jti", "new"))

        assert left == 0
        assert await read(client, as_service, after=2) == {"last": 2, "revocations": []}

    @pytest.mark.parametrize("after", ["-1", "x", "1.5", str(2**63), "", "9" * 5000])
    async def test_an_invalid_number_is_422(
        self, client: AsyncClient, as_service: Headers, after: str
    ) -> None:
        answer = await client.get(f"/revocations?after={after}", headers=as_service)

        assert answer.status_code == 422

    async def test_only_services_may_read_it(
        self, app: FastAPI, client: AsyncClient, as_ada: Headers
    ) -> None:
        assert (await client.get("/revocations")).status_code == 401
        assert (await client.get("/revocations", headers=as_ada)).status_code == 403
