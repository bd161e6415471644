"""The token endpoint: sign-ins and refresh tokens (RFC 6749)."""

import asyncio
from datetime import UTC, datetime

import httpx
import pytest
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import func, select, update

from services.auth.models import RefreshFamily, User
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ISSUER,
    OWNER_SCOPE,
    PASSWORD,
    SignIn,
    assert_refused,
)

pytestmark = pytest.mark.any_database


async def make_admin(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(update(User).values(is_admin=True))


async def disable(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(update(User).values(disabled_at=datetime.now(UTC)))


class TestPassword:
    async def test_the_response_follows_the_standard(
        self, ada: dict[str, str], sign_in: SignIn
    ) -> None:
        answer = await sign_in()

        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert set(body) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
        assert (body["token_type"], body["expires_in"]) == ("bearer", 3600)
        assert body["scope"] == OWNER_SCOPE

    async def test_the_access_token_follows_rfc_9068(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn
    ) -> None:
        token = (await sign_in()).json()["access_token"]

        keys = (await client.get("/.well-known/jwks.json")).json()["keys"]
        header, claims = jwt.get_unverified_header(token), jwt.get_unverified_claims(token)
        assert header == {"typ": "at+jwt", "alg": "RS256", "kid": keys[0]["kid"]}
        assert jwt.decode(token, keys[0], ["RS256"], audience="tollgate", issuer=ISSUER) == claims
        assert claims["sub"] == ada["id"]
        assert claims["client_id"] == "tollgate-web"
        assert claims["scope"] == OWNER_SCOPE
        assert claims["exp"] - claims["iat"] == 3600
        assert claims["user_id"] == ada["id"]
        required = {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope"}
        assert set(claims) == required | {"user_id"}

    async def test_every_token_has_its_own_id(self, ada: dict[str, str], sign_in: SignIn) -> None:
        tokens = [(await sign_in()).json()["access_token"] for _ in range(2)]

        assert len({jwt.get_unverified_claims(token)["jti"] for token in tokens}) == 2

    @pytest.mark.every_database
    async def test_any_spelling_of_the_email_signs_in(
        self, ada: dict[str, str], sign_in: SignIn
    ) -> None:
        assert (await sign_in(" ADA@Example.com ")).status_code == 200

    @pytest.mark.parametrize(
        ("scope", "granted"),
        [
            ("", OWNER_SCOPE),
            ("  ", OWNER_SCOPE),
            ("predict", "predict"),
            ("usage:read predict", "predict usage:read"),
            ("predict predict", "predict"),
        ],
    )
    async def test_it_grants_the_requested_scopes_or_all(
        self, ada: dict[str, str], sign_in: SignIn, scope: str, granted: str
    ) -> None:
        assert (await sign_in(scope=scope)).json()["scope"] == granted

    @pytest.mark.parametrize("scope", ["admin", "predict admin", "billing:write", "nonsense", "é"])
    async def test_requesting_another_scope_is_invalid_scope(
        self, ada: dict[str, str], sign_in: SignIn, scope: str
    ) -> None:
        assert_refused(await sign_in(scope=scope), "invalid_scope")

    async def test_an_administrator_gets_the_admin_scope(
        self, ada: dict[str, str], sign_in: SignIn, database: Database
    ) -> None:
        await make_admin(database)

        assert (await sign_in()).json()["scope"] == f"{OWNER_SCOPE} admin"

    async def test_an_unknown_or_disabled_user_gets_the_response_to_a_wrong_password(
        self, ada: dict[str, str], sign_in: SignIn, database: Database
    ) -> None:
        wrong = await sign_in(password="wrong password")
        unknown = await sign_in("nobody@example.com")
        await disable(database)
        disabled = await sign_in()

        assert_refused(wrong, "invalid_grant")
        for other in (unknown, disabled):
            assert (other.status_code, other.content) == (wrong.status_code, wrong.content)

    @pytest.mark.parametrize(
        "password", ["x" * 5000, "with\0NUL", PASSWORD + "\0", " ", "🔑" * 1025]
    )
    async def test_an_impossible_password_is_just_wrong(
        self, ada: dict[str, str], sign_in: SignIn, password: str
    ) -> None:
        assert_refused(await sign_in(password=password), "invalid_grant")

    @pytest.mark.parametrize("username", ["no address", "\0", "é" * 300, "' OR 1=1 --", "%"])
    async def test_an_impossible_username_is_just_wrong(
        self, ada: dict[str, str], sign_in: SignIn, username: str
    ) -> None:
        assert_refused(await sign_in(username), "invalid_grant")


class TestRefresh:
    async def refresh(self, client: AsyncClient, token: str, **more: str) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token, **more}
        return await client.post("/token", data=form)

    async def test_each_use_issues_a_new_refresh_token(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn
    ) -> None:
        seen = [(await sign_in()).json()["refresh_token"]]
        for _ in range(3):
            answer = await self.refresh(client, seen[-1])
            assert answer.status_code == 200
            assert jwt.get_unverified_claims(answer.json()["access_token"])["sub"] == ada["id"]
            seen.append(answer.json()["refresh_token"])

        assert len(set(seen)) == 4

    async def test_reuse_revokes_the_whole_family(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn
    ) -> None:
        stolen = (await sign_in()).json()["refresh_token"]
        other_login = (await sign_in()).json()["refresh_token"]
        newest = (await self.refresh(client, stolen)).json()["refresh_token"]

        assert_refused(await self.refresh(client, stolen), "invalid_grant")
        assert_refused(await self.refresh(client, newest), "invalid_grant")
        assert (await self.refresh(client, other_login)).status_code == 200

    @pytest.mark.every_database
    async def test_of_two_concurrent_uses_one_succeeds_and_the_family_is_revoked(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn, database: Database
    ) -> None:
        token = (await sign_in()).json()["refresh_token"]

        answers = await asyncio.gather(*(self.refresh(client, token) for _ in range(10)))

        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 9
        async with database.snapshot() as session:
            assert await session.scalar(select(func.count()).select_from(RefreshFamily)) == 0

    async def test_only_its_hash_is_stored(
        self, ada: dict[str, str], sign_in: SignIn, database: Database
    ) -> None:
        token = (await sign_in()).json()["refresh_token"]

        async with database.snapshot() as session:
            family = (await session.scalars(select(RefreshFamily))).one()
        assert token.partition(".")[2] not in str(vars(family))

    async def test_it_may_narrow_the_scope_but_not_widen_it(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn
    ) -> None:
        token = (await sign_in(scope="predict")).json()["refresh_token"]

        assert_refused(await self.refresh(client, token, scope="usage:read"), "invalid_scope")
        assert (await self.refresh(client, token)).json()["scope"] == "predict"

    async def test_a_withdrawn_admin_role_is_not_granted(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn, database: Database
    ) -> None:
        await make_admin(database)
        token = (await sign_in()).json()["refresh_token"]
        async with database.transaction() as session:
            await session.execute(update(User).values(is_admin=False))

        assert (await self.refresh(client, token)).json()["scope"] == OWNER_SCOPE

    async def test_it_expires_and_is_revoked_with_its_user(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn, database: Database
    ) -> None:
        expired = (await sign_in()).json()["refresh_token"]
        async with database.transaction() as session:
            await session.execute(update(RefreshFamily).values(expires_at=datetime.now(UTC)))
        disabled = (await sign_in()).json()["refresh_token"]
        await disable(database)

        for token in (expired, disabled):
            assert_refused(await self.refresh(client, token), "invalid_grant")

    @pytest.mark.parametrize("token", ["x", ".", "a.b", "é.ü", "x" * 5000, "\0", "' OR 1=1 --"])
    async def test_a_malformed_token_is_invalid(self, client: AsyncClient, token: str) -> None:
        assert_refused(await self.refresh(client, token), "invalid_grant")
