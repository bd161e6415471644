"""OAuth clients of users."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import select, update

from services.auth.clients import service
from services.auth.clients.credentials import ensure_service_client
from services.auth.models import Client, User
from services.common.db.database import Database
from tests.integration.auth.conftest import PASSWORD, Headers, SignIn, bearer


async def create(client: AsyncClient, headers: Headers, **body: object) -> dict[str, Any]:
    answer = await client.post("/clients", json={"name": "job", **body}, headers=headers)
    assert answer.status_code == 201, answer.text
    credentials: dict[str, Any] = answer.json()
    return credentials


async def token_for(
    client: AsyncClient, credentials: dict[str, Any], **form: str
) -> httpx.Response:
    return await client.post(
        "/token",
        data={"grant_type": "client_credentials", **form},
        auth=(credentials["client_id"], credentials["client_secret"]),
    )


@pytest.fixture
async def as_bob(client: AsyncClient, sign_in: SignIn) -> Headers:
    bob = {"email": "bob@example.com", "password": PASSWORD}
    assert (await client.post("/register", json=bob)).status_code == 201
    return bearer((await sign_in("bob@example.com")).json()["access_token"])


@pytest.mark.any_database
class TestCreate:
    async def test_its_tokens_identify_the_owner(
        self, client: AsyncClient, ada: dict[str, str], as_ada: Headers
    ) -> None:
        credentials = await create(client, as_ada, name="nightly")
        token = (await token_for(client, credentials)).json()

        claims = jwt.get_unverified_claims(token["access_token"])
        assert (claims["sub"], claims["client_id"]) == (ada["id"], credentials["client_id"])
        assert credentials["scope"] == token["scope"] == "predict usage:read"
        assert (await client.get("/users/me", headers=bearer(token["access_token"]))).json() == ada

    async def test_the_secret_is_shown_once_and_stored_as_a_hash(
        self, client: AsyncClient, as_ada: Headers, database: Database
    ) -> None:
        credentials = await create(client, as_ada)

        response = await client.get("/clients", headers=as_ada)
        async with database.snapshot() as session:
            stored = (await session.scalars(select(Client))).one()
        assert credentials["client_secret"] not in response.text
        assert credentials["client_secret"] not in str(vars(stored))

    async def test_it_may_have_a_narrower_scope(self, client: AsyncClient, as_ada: Headers) -> None:
        credentials = await create(client, as_ada, scope="predict")

        assert (await token_for(client, credentials)).json()["scope"] == "predict"
        wider = await token_for(client, credentials, scope="usage:read")
        assert wider.json()["error"] == "invalid_scope"

    async def test_it_expires(
        self, client: AsyncClient, as_ada: Headers, database: Database
    ) -> None:
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        credentials = await create(client, as_ada, expires_at=tomorrow)
        assert (await token_for(client, credentials)).status_code == 200

        async with database.transaction() as session:
            await session.execute(update(Client).values(expires_at=datetime.now(UTC)))

        assert (await token_for(client, credentials)).json()["error"] == "invalid_client"

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            ("9998-12-31T23:59:59.999999Z", "9998-12-31T23:59:59.999999Z"),
            ("9998-12-31t23:59:59-00:00", "9998-12-31T23:59:59Z"),
            ("9999-01-01T13:59:59+14:00", "9998-12-31T23:59:59Z"),
        ],
    )
    async def test_it_may_expire_in_the_far_future(
        self, client: AsyncClient, as_ada: Headers, sent: str, expected: str
    ) -> None:
        credentials = await create(client, as_ada, expires_at=sent)

        [listed] = (await client.get("/clients", headers=as_ada)).json()["clients"]
        token = await token_for(client, credentials)
        assert [credentials["expires_at"], listed["expires_at"]] == [expected, expected]
        assert (token.status_code, token.json()["expires_in"]) == (200, 3600)

    async def test_its_tokens_expire_with_it(self, client: AsyncClient, as_ada: Headers) -> None:
        ends_at = datetime.now(UTC) + timedelta(seconds=90)
        credentials = await create(client, as_ada, expires_at=ends_at.isoformat())

        token = (await token_for(client, credentials)).json()

        claims = jwt.get_unverified_claims(token["access_token"])
        assert claims["exp"] == int(ends_at.timestamp())
        assert token["expires_in"] == claims["exp"] - claims["iat"] <= 90

    async def test_it_gets_no_token_in_its_last_second(
        self, client: AsyncClient, as_ada: Headers, database: Database
    ) -> None:
        credentials = await create(client, as_ada)
        async with database.transaction() as session:
            ends_at = datetime.now(UTC).replace(microsecond=999_000)
            await session.execute(update(Client).values(expires_at=ends_at))

        assert (await token_for(client, credentials)).json()["error"] == "invalid_client"

    async def test_a_client_loses_the_scopes_that_its_owner_loses(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn, database: Database
    ) -> None:
        async with database.transaction() as session:
            await session.execute(update(User).values(is_admin=True))
        as_admin = bearer((await sign_in()).json()["access_token"])
        credentials = await create(client, as_admin, scope="admin predict")
        only_admin = await create(client, as_admin, scope="admin")
        async with database.transaction() as session:
            await session.execute(update(User).values(is_admin=False))

        assert (await token_for(client, credentials)).json()["scope"] == "predict"
        assert (await token_for(client, only_admin)).json()["error"] == "invalid_scope"

    async def test_disabling_the_owner_disables_it(
        self, client: AsyncClient, as_ada: Headers, database: Database
    ) -> None:
        credentials = await create(client, as_ada)
        async with database.transaction() as session:
            await session.execute(update(User).values(disabled_at=datetime.now(UTC)))

        assert (await token_for(client, credentials)).json()["error"] == "invalid_grant"

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "name"),
            ({"name": ""}, "name"),
            ({"name": "x" * 101}, "name"),
            ({"name": "x", "scope": "admin"}, "scope"),
            ({"name": "x", "scope": "nonsense"}, "scope"),
            ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
            ({"name": "x", "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
            ({"name": "x", "expires_at": "2099-01-01"}, "expires_at"),
            ({"name": "x", "expires_at": "2099-01-01 00:00:00Z"}, "expires_at"),
            ({"name": "x", "expires_at": 4_070_908_800}, "expires_at"),
            ({"name": "x", "expires_at": "4070908800"}, "expires_at"),
            ({"name": "x", "expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
            ({"name": "x", "expires_at": "9999-12-31T23:59:59+14:00"}, "expires_at"),
            ({"name": "x", "expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
            ({"name": "x", "expires_at": "0001-01-01T00:00:00+23:59"}, "expires_at"),
            ({"name": "x", "owner_id": "someone"}, "owner_id"),
        ],
    )
    async def test_invalid_fields_are_named(
        self, client: AsyncClient, as_ada: Headers, body: dict[str, object], field: str
    ) -> None:
        answer = await client.post("/clients", json=body, headers=as_ada)

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["body", field]

    async def test_the_number_of_clients_is_limited(
        self, client: AsyncClient, as_ada: Headers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "MAX_CLIENTS", 2)
        for _ in range(2):
            await create(client, as_ada)

        answer = await client.post("/clients", json={"name": "job"}, headers=as_ada)

        assert answer.status_code == 409


class TestListAndDelete:
    async def test_a_user_only_sees_their_own_clients(
        self, client: AsyncClient, as_ada: Headers, as_bob: Headers
    ) -> None:
        clients = [await create(client, as_ada, name=name) for name in ("one", "two")]

        mine = (await client.get("/clients", headers=as_ada)).json()["clients"]
        theirs = (await client.get("/clients", headers=as_bob)).json()["clients"]

        assert {entry["client_id"] for entry in mine} == {entry["client_id"] for entry in clients}
        assert theirs == []

    async def test_a_deleted_client_gets_no_more_tokens(
        self, client: AsyncClient, as_ada: Headers
    ) -> None:
        credentials = await create(client, as_ada)

        deleted = await client.delete(f"/clients/{credentials['client_id']}", headers=as_ada)

        assert (deleted.status_code, deleted.content) == (204, b"")
        assert (await token_for(client, credentials)).status_code == 401

    async def test_a_client_of_another_user_is_not_found(
        self, client: AsyncClient, as_ada: Headers, as_bob: Headers
    ) -> None:
        credentials = await create(client, as_ada)

        not_owned = await client.delete(f"/clients/{credentials['client_id']}", headers=as_bob)
        unknown = await client.delete("/clients/tgc_ünknown", headers=as_bob)

        assert not_owned.status_code == unknown.status_code == 404
        assert (await token_for(client, credentials)).status_code == 200


class TestPermissions:
    @pytest.mark.parametrize(
        ("method", "path"), [("POST", "/clients"), ("GET", "/clients"), ("DELETE", "/clients/x")]
    )
    async def test_a_token_is_required(self, client: AsyncClient, method: str, path: str) -> None:
        answer = await client.request(method, path, content=b"{bad json" * 100_000)

        assert answer.status_code == 401

    async def test_a_machine_client_cannot_create_or_delete_clients(
        self, client: AsyncClient, as_ada: Headers
    ) -> None:
        credentials = await create(client, as_ada)
        as_machine = bearer((await token_for(client, credentials)).json()["access_token"])

        creating = await client.post("/clients", json={"name": "heir"}, headers=as_machine)
        deleting = await client.delete(f"/clients/{credentials['client_id']}", headers=as_machine)

        assert creating.status_code == deleting.status_code == 403


async def test_ensuring_a_service_client_sets_secret_and_scope(
    client: AsyncClient, inference: tuple[str, str], database: Database
) -> None:
    async with database.transaction() as session:
        await ensure_service_client(
            session, client_id="inference", client_secret="another", scope="predict"
        )

    credentials = {"client_id": "inference", "client_secret": "another"}
    assert (await token_for(client, credentials)).json()["scope"] == "predict"
    old = {"client_id": inference[0], "client_secret": inference[1]}
    assert (await token_for(client, old)).status_code == 401
