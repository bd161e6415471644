"""Revocation (RFC 7009) and introspection (RFC 7662)."""

from datetime import UTC, datetime

import httpx
import pytest
from httpx import AsyncClient
from sqlalchemy import delete, update

from services.auth.models import User
from services.common.db.database import Database
from tests.integration.auth.conftest import OWNER_SCOPE, PASSWORD, Headers, SignIn, bearer

pytestmark = pytest.mark.any_database


class TestRevoke:
    async def refresh(self, client: AsyncClient, token: str) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token}
        return await client.post("/token", data=form)

    async def test_a_revoked_family_issues_no_more_tokens(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn
    ) -> None:
        revoked = (await sign_in()).json()["refresh_token"]
        other = (await sign_in()).json()["refresh_token"]

        answer = await client.post("/revoke", data={"token": revoked})

        assert (answer.status_code, answer.content) == (200, b"")
        assert (await self.refresh(client, revoked)).json()["error"] == "invalid_grant"
        assert (await self.refresh(client, other)).status_code == 200

    @pytest.mark.parametrize("token", ["unknown", "é", "a.b"])
    async def test_an_unknown_token_is_ignored(self, client: AsyncClient, token: str) -> None:
        answer = await client.post("/revoke", data={"token": token})

        assert answer.status_code == 200

    async def test_a_revoked_access_token_is_refused_and_no_other(
        self,
        client: AsyncClient,
        ada: dict[str, str],
        sign_in: SignIn,
        inference: tuple[str, str],
    ) -> None:
        token, other = [(await sign_in()).json()["access_token"] for _ in range(2)]

        answer = await client.post("/revoke", data={"token": token})

        assert (answer.status_code, answer.content) == (200, b"")
        assert (await client.get("/users/me", headers=bearer(token))).status_code == 401
        assert (await client.get("/users/me", headers=bearer(other))).status_code == 200
        introspected = await client.post("/introspect", data={"token": token}, auth=inference)
        assert introspected.json() == {"active": False}

    async def test_wrong_client_credentials_are_rejected(self, client: AsyncClient) -> None:
        answer = await client.post("/revoke", data={"token": "x"}, auth=("nobody", "x"))

        assert answer.status_code == 401

    async def test_the_token_parameter_is_required(self, client: AsyncClient) -> None:
        answer = await client.post("/revoke", data={"tocken": "x"})

        assert answer.json()["error"] == "invalid_request"


class TestIntrospect:
    @pytest.fixture
    async def access_token(self, ada: dict[str, str], sign_in: SignIn) -> str:
        token: str = (await sign_in()).json()["access_token"]
        return token

    async def test_a_service_gets_the_claims_of_a_token(
        self,
        client: AsyncClient,
        ada: dict[str, str],
        access_token: str,
        inference: tuple[str, str],
    ) -> None:
        answer = await client.post("/introspect", data={"token": access_token}, auth=inference)

        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert (body["active"], body["token_type"]) == (True, "Bearer")
        assert (body["sub"], body["scope"]) == (ada["id"], OWNER_SCOPE)

    async def test_a_service_token_is_active(
        self, client: AsyncClient, inference: tuple[str, str]
    ) -> None:
        form = {"grant_type": "client_credentials"}
        token = (await client.post("/token", data=form, auth=inference)).json()["access_token"]

        answer = await client.post("/introspect", data={"token": token}, auth=inference)

        assert answer.json()["active"] is True

    @pytest.mark.parametrize("token", ["x", "a.b.c", "é", "x" * 9000])
    async def test_a_malformed_token_is_inactive(
        self, client: AsyncClient, inference: tuple[str, str], token: str
    ) -> None:
        answer = await client.post("/introspect", data={"token": token}, auth=inference)

        assert (answer.status_code, answer.json()) == (200, {"active": False})

    async def test_the_token_of_a_disabled_or_deleted_user_is_inactive(
        self,
        client: AsyncClient,
        access_token: str,
        inference: tuple[str, str],
        database: Database,
    ) -> None:
        for change in (update(User).values(disabled_at=datetime.now(UTC)), delete(User)):
            async with database.transaction() as session:
                await session.execute(change)

            answer = await client.post("/introspect", data={"token": access_token}, auth=inference)

            assert answer.json() == {"active": False}

    async def test_a_users_client_can_only_introspect_its_owners_tokens(
        self, client: AsyncClient, as_ada: Headers, access_token: str, sign_in: SignIn
    ) -> None:
        bob = {"email": "bob@example.com", "password": PASSWORD}
        await client.post("/register", json=bob)
        as_bob = bearer((await sign_in("bob@example.com")).json()["access_token"])
        active = []
        for headers in (as_ada, as_bob):
            credentials = (
                await client.post("/clients", json={"name": "x"}, headers=headers)
            ).json()
            answer = await client.post(
                "/introspect",
                data={"token": access_token},
                auth=(credentials["client_id"], credentials["client_secret"]),
            )
            active.append(answer.json()["active"])

        assert active == [True, False]

    async def test_a_client_is_required(self, client: AsyncClient, access_token: str) -> None:
        answer = await client.post("/introspect", data={"token": access_token})

        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
