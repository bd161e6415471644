"""API keys: managed by their owner, introspected by services."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from httpx import AsyncClient
from sqlalchemy import select, update

from services.auth.api_keys import service
from services.auth.api_keys.credentials import delete_expired_keys
from services.auth.models import ApiKey, User
from services.common.db.database import Database
from services.common.identity.api_keys import is_api_key, new_api_key
from tests.integration.auth.conftest import PASSWORD, Headers, SignIn, bearer

Service = tuple[str, str]


async def create(client: AsyncClient, headers: Headers, **body: object) -> dict[str, Any]:
    answer = await client.post("/api-keys", json={"name": "website", **body}, headers=headers)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


async def introspect(client: AsyncClient, service: Service, key: str) -> dict[str, Any]:
    answer = await client.post("/introspect", data={"token": key}, auth=service)
    assert answer.status_code == 200, answer.text
    claims: dict[str, Any] = answer.json()
    return claims


async def listed(client: AsyncClient, headers: Headers) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = (await client.get("/api-keys", headers=headers)).json()["api_keys"]
    return keys


@pytest.fixture
async def as_bob(client: AsyncClient, sign_in: SignIn) -> Headers:
    bob = {"email": "bob@example.com", "password": PASSWORD}
    assert (await client.post("/register", json=bob)).status_code == 201
    return bearer((await sign_in("bob@example.com")).json()["access_token"])


@pytest.mark.any_database
class TestCreate:
    async def test_a_key_is_shown_once_and_only_its_digest_is_stored(
        self, client: AsyncClient, as_ada: Headers, database: Database
    ) -> None:
        created = await create(client, as_ada)

        key = created["key"]
        assert is_api_key(key.encode())
        assert key.startswith("tg_live_")
        assert created["prefix"] == key[:12]
        answer = await client.get("/api-keys", headers=as_ada)
        async with database.snapshot() as session:
            stored = (await session.scalars(select(ApiKey))).one()
        assert key not in answer.text
        assert key not in str(vars(stored))
        assert answer.json()["api_keys"] == [
            {name: value for name, value in created.items() if name != "key"}
        ]

    async def test_its_response_is_not_cached(self, client: AsyncClient, as_ada: Headers) -> None:
        answer = await client.post("/api-keys", json={"name": "x"}, headers=as_ada)

        assert answer.headers["cache-control"] == "no-store"

    async def test_by_default_it_has_both_scopes_and_no_limits(
        self, client: AsyncClient, as_ada: Headers
    ) -> None:
        created = await create(client, as_ada)

        assert created["scope"] == "predict usage:read"
        assert created["mode"] == "live"
        for name in ("models", "allowed_ips", "expires_at", "last_used_at"):
            assert created[name] is None

    async def test_it_may_be_limited(self, client: AsyncClient, as_ada: Headers) -> None:
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)

        created = await create(
            client,
            as_ada,
            scope="predict",
            models=["wine", "price", "wine"],
            allowed_ips=["203.0.113.7", "198.51.100.0/24", "2001:DB8::/32"],
            expires_at=tomorrow.isoformat(),
            mode="test",
        )

        assert created["key"].startswith("tg_test_")
        assert created["scope"] == "predict"
        assert created["models"] == ["wine", "price"]
        assert created["allowed_ips"] == ["203.0.113.7", "198.51.100.0/24", "2001:db8::/32"]
        assert datetime.fromisoformat(created["expires_at"]) == tomorrow
        assert created["mode"] == "test"

    @pytest.mark.parametrize(
        ("field", "wrong"),
        [
            ("name", ""),
            ("name", "x" * 101),
            ("name", None),
            ("scope", "admin"),
            ("scope", "predict keys:write"),
            ("scope", "billing:write"),
            ("models", []),
            ("models", ["two words"]),
            ("models", ["é"]),
            ("models", ["x"] * 51),
            ("models", "wine"),
            ("allowed_ips", []),
            ("allowed_ips", ["example.com"]),
            ("allowed_ips", ["10.0.0.1/8"]),
            ("allowed_ips", ["10.0.0.0/33"]),
            ("allowed_ips", [10]),
            ("expires_at", "2020-01-01T00:00:00Z"),
            ("expires_at", 4102444800),
            ("mode", "prod"),
            ("key", "tg_live_mine"),
        ],
    )
    async def test_invalid_input_is_422(
        self, client: AsyncClient, as_ada: Headers, field: str, wrong: object
    ) -> None:
        body = {"name": "website", field: wrong}

        answer = await client.post("/api-keys", json=body, headers=as_ada)

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"][:2] == ["body", field]
        assert await listed(client, as_ada) == []

    async def test_an_account_has_a_limited_number(
        self, client: AsyncClient, as_ada: Headers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "MAX_KEYS", 2)
        for _ in range(2):
            await create(client, as_ada)

        answer = await client.post("/api-keys", json={"name": "x"}, headers=as_ada)

        assert answer.status_code == 409

    async def test_a_token_without_the_scope_is_403(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn
    ) -> None:
        token = (await sign_in(scope="predict usage:read")).json()["access_token"]

        answer = await client.post("/api-keys", json={"name": "x"}, headers=bearer(token))

        assert answer.status_code == 403

    async def test_a_key_is_no_credential_of_auth_itself(
        self, client: AsyncClient, as_ada: Headers
    ) -> None:
        key = (await create(client, as_ada))["key"]

        for headers in (bearer(key), {"X-API-Key": key}):
            assert (await client.get("/users/me", headers=headers)).status_code == 401
            assert (await client.get("/api-keys", headers=headers)).status_code == 401


class TestIntrospect:
    async def test_a_service_gets_the_account_and_the_limits(
        self, client: AsyncClient, ada: dict[str, str], as_ada: Headers, inference: Service
    ) -> None:
        created = await create(
            client, as_ada, scope="predict", models=["wine"], allowed_ips=["10.0.0.0/8"]
        )

        claims = await introspect(client, inference, created["key"])

        issued = claims.pop("iat")
        assert abs(issued - datetime.now(UTC).timestamp()) < 3600
        assert claims == {
            "active": True,
            "token_type": "api_key",
            "sub": ada["id"],
            "client_id": created["id"],
            "scope": "predict",
            "mode": "live",
            "models": ["wine"],
            "allowed_ips": ["10.0.0.0/8"],
        }

    async def test_it_counts_as_a_use(
        self, client: AsyncClient, as_ada: Headers, inference: Service
    ) -> None:
        created = await create(client, as_ada)
        before = datetime.now(UTC)

        await introspect(client, inference, created["key"])

        [key] = await listed(client, as_ada)
        assert datetime.fromisoformat(key["last_used_at"]) >= before
        await introspect(client, inference, created["key"])
        assert await listed(client, as_ada) == [key]  # not written for each

    async def test_a_users_client_can_only_introspect_its_owners_keys(
        self, client: AsyncClient, as_ada: Headers, as_bob: Headers
    ) -> None:
        key = (await create(client, as_ada))["key"]
        active = []
        for headers in (as_ada, as_bob):
            own = (await client.post("/clients", json={"name": "x"}, headers=headers)).json()
            claims = await introspect(client, (own["client_id"], own["client_secret"]), key)
            active.append(claims["active"])

        assert active == [True, False]
        assert (await listed(client, as_ada))[0]["last_used_at"] is None

    async def test_unknown_and_mistyped_keys_are_inactive(
        self, client: AsyncClient, as_ada: Headers, inference: Service
    ) -> None:
        key = (await create(client, as_ada))["key"]

        for wrong in (new_api_key("live"), key[:-1] + "!", key + "0", "tg_", "tg_live_é"):
            assert await introspect(client, inference, wrong) == {"active": False}

    async def test_an_expired_key_is_inactive(
        self, client: AsyncClient, as_ada: Headers, inference: Service, database: Database
    ) -> None:
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        key = (await create(client, as_ada, expires_at=tomorrow))["key"]
        claims = await introspect(client, inference, key)
        async with database.transaction() as session:
            await session.execute(update(ApiKey).values(expires_at=datetime.now(UTC)))

        assert claims["exp"] == int(datetime.fromisoformat(tomorrow).timestamp())
        assert await introspect(client, inference, key) == {"active": False}

    async def test_the_key_of_a_disabled_user_is_inactive(
        self, client: AsyncClient, as_ada: Headers, inference: Service, database: Database
    ) -> None:
        key = (await create(client, as_ada))["key"]
        async with database.transaction() as session:
            await session.execute(update(User).values(disabled_at=datetime.now(UTC)))

        assert await introspect(client, inference, key) == {"active": False}

    async def test_expired_keys_are_deleted_in_the_end(
        self, client: AsyncClient, as_ada: Headers, database: Database
    ) -> None:
        kept = await create(client, as_ada)
        await create(client, as_ada)
        now = datetime.now(UTC)
        async with database.transaction() as session:
            await session.execute(
                update(ApiKey).where(ApiKey.id != kept["id"]).values(expires_at=now)
            )
            await delete_expired_keys(session, before=now - timedelta(days=30))
        assert len(await listed(client, as_ada)) == 2

        async with database.transaction() as session:
            await delete_expired_keys(session, before=now + timedelta(seconds=1))

        assert [key["id"] for key in await listed(client, as_ada)] == [kept["id"]]


class TestRotate:
    async def rotate(
        self, client: AsyncClient, headers: Headers, key_id: str, **body: object
    ) -> httpx.Response:
        return await client.post(f"/api-keys/{key_id}/rotate", json=body, headers=headers)

    async def test_the_new_key_may_do_the_same_and_the_old_one_ends_at_once(
        self, client: AsyncClient, as_ada: Headers, inference: Service
    ) -> None:
        old = await create(
            client, as_ada, scope="predict", models=["wine"], allowed_ips=["10.0.0.1"], mode="test"
        )

        answer = await client.post(f"/api-keys/{old['id']}/rotate", headers=as_ada)

        new = answer.json()
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        changed = {name for name in new if new[name] != old[name]}
        assert changed == {"id", "key", "prefix", "created_at"}
        assert await introspect(client, inference, old["key"]) == {"active": False}
        assert (await introspect(client, inference, new["key"]))["models"] == ["wine"]
        assert [key["id"] for key in await listed(client, as_ada)] == [new["id"]]

    async def test_both_keys_work_during_the_overlap(
        self, client: AsyncClient, as_ada: Headers, inference: Service, database: Database
    ) -> None:
        old = await create(client, as_ada)

        new = (await self.rotate(client, as_ada, old["id"], overlap_seconds=60)).json()

        during = await introspect(client, inference, old["key"])
        assert 0 < during["exp"] - datetime.now(UTC).timestamp() <= 60
        assert (await introspect(client, inference, new["key"]))["active"] is True
        async with database.transaction() as session:
            ended = (
                update(ApiKey).where(ApiKey.id == old["id"]).values(expires_at=datetime.now(UTC))
            )
            await session.execute(ended)
        assert await introspect(client, inference, old["key"]) == {"active": False}
        assert (await introspect(client, inference, new["key"])).get("exp") is None

    async def test_an_overlap_never_extends_the_life_of_a_key(
        self, client: AsyncClient, as_ada: Headers
    ) -> None:
        soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
        old = await create(client, as_ada, expires_at=soon)

        new = (await self.rotate(client, as_ada, old["id"], overlap_seconds=3600)).json()

        expiries = [key["expires_at"] for key in await listed(client, as_ada)]
        assert expiries == [old["expires_at"]] * 2
        assert new["expires_at"] == old["expires_at"]

    @pytest.mark.parametrize("overlap", [-1, 7 * 24 * 3600 + 1, 1.5, "a day", None])
    async def test_an_invalid_overlap_is_422(
        self, client: AsyncClient, as_ada: Headers, overlap: object
    ) -> None:
        key = await create(client, as_ada)

        answer = await self.rotate(client, as_ada, key["id"], overlap_seconds=overlap)

        assert answer.status_code == 422

    async def test_an_expired_key_is_not_rotated(
        self, client: AsyncClient, as_ada: Headers, database: Database
    ) -> None:
        key = await create(client, as_ada)
        async with database.transaction() as session:
            await session.execute(update(ApiKey).values(expires_at=datetime.now(UTC)))

        assert (await self.rotate(client, as_ada, key["id"])).status_code == 409

    async def test_of_two_rotations_at_once_one_counts(
        self, client: AsyncClient, as_ada: Headers
    ) -> None:
        key = await create(client, as_ada)

        answers = await asyncio.gather(*(self.rotate(client, as_ada, key["id"]) for _ in range(2)))

        assert sorted(answer.status_code for answer in answers) == [201, 404]
        assert len(await listed(client, as_ada)) == 1


class TestDelete:
    async def test_a_deleted_key_is_inactive(
        self, client: AsyncClient, as_ada: Headers, inference: Service
    ) -> None:
        key = await create(client, as_ada)

        answer = await client.delete(f"/api-keys/{key['id']}", headers=as_ada)

        assert (answer.status_code, answer.content) == (204, b"")
        assert await listed(client, as_ada) == []
        assert await introspect(client, inference, key["key"]) == {"active": False}

    async def test_another_accounts_key_does_not_exist(
        self, client: AsyncClient, as_ada: Headers, as_bob: Headers, inference: Service
    ) -> None:
        key = await create(client, as_ada)

        for method, path in (("DELETE", ""), ("POST", "/rotate")):
            for key_id in (key["id"], "unknown", "é", "%00", "x" * 500):
                answer = await client.request(method, f"/api-keys/{key_id}{path}", headers=as_bob)
                assert answer.status_code == 404
        assert await listed(client, as_bob) == []
        assert (await introspect(client, inference, key["key"]))["active"] is True
