"""Authorization codes, and the tokens that an app gets for one."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import select

from services.auth.models import FamilyToken, RefreshFamily
from services.auth.openid.models import AuthorizationCode
from services.common.db.database import Database
from tests.integration.auth.conftest import Headers, assert_refused, bearer, count, revoked
from tests.integration.auth.openid.signing_in import CALLBACK, App, register_app, wait_for_audit

pytestmark = pytest.mark.any_database


class TestCodes:
    async def test_a_code_is_good_once_and_a_replay_revokes_its_tokens(
        self,
        weather: App,
        client: AsyncClient,
        app: FastAPI,
        database: Database,
        ada: dict[str, str],
    ) -> None:
        code = await weather.get_code()
        first = (await weather.exchange(code)).json()
        second = (await weather.refresh(first["refresh_token"])).json()

        replayed = await weather.exchange(code)

        assert_refused(replayed, "invalid_grant")
        for tokens in (first, second):
            answer = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
            assert answer.status_code == 401
            assert_refused(await weather.refresh(tokens["refresh_token"]), "invalid_grant")
        assert [kind for kind, _ in await revoked(database)] == ["jti", "jti"]
        await wait_for_audit(database, "code_reused", ada["id"])

    @pytest.mark.every_database
    async def test_of_concurrent_exchanges_none_keeps_tokens(
        self, weather: App, client: AsyncClient, database: Database
    ) -> None:
        code = await weather.get_code()

        answers = await asyncio.gather(*(weather.exchange(code) for _ in range(4)))

        assert sorted(each.status_code for each in answers) == [200, 400, 400, 400]
        [tokens] = [each.json() for each in answers if each.status_code == 200]
        info = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
        assert info.status_code == 401
        assert await count(database, RefreshFamily) == 1  # Ada's own sign-in

    @pytest.mark.parametrize(
        "changes",
        [
            {"code": "x"},
            {"code": "é"},
            {"code": "x" * 5000},
            {"code_verifier": "w" * 43},
            {"code_verifier": "short"},
            {"code_verifier": "é" * 43},
            {"code_verifier": "v" * 129},
            {"redirect_uri": "https://evil.example.com/callback"},
            {"redirect_uri": f"{CALLBACK}/"},
        ],
    )
    async def test_a_code_is_bound_to_its_request(
        self, weather: App, app: FastAPI, database: Database, changes: dict[str, str | None]
    ) -> None:
        code = await weather.get_code()

        wrong = await weather.exchange(code, **changes)

        assert_refused(wrong, "invalid_grant")
        await wait_for_audit(database, "code_rejected", weather.client_id)
        assert (await weather.exchange(code)).status_code == 200

    @pytest.mark.parametrize("name", ["code", "redirect_uri", "code_verifier"])
    async def test_every_parameter_is_required(self, weather: App, name: str) -> None:
        answer = await weather.exchange(await weather.get_code(), **{name: None})

        assert_refused(answer, "invalid_request")

    async def test_a_code_of_another_app_is_refused(
        self, weather: App, client: AsyncClient, as_ada: Headers, app: FastAPI
    ) -> None:
        other = await register_app(client, as_ada, app, name="Other")
        code = await weather.get_code()

        assert_refused(await other.exchange(code), "invalid_grant")

        assert_refused(await weather.exchange(code, client_id=None), "invalid_client", 401)
        assert (await weather.exchange(code)).status_code == 200
        assert_refused(await other.exchange(code), "invalid_grant")
        await other.browser.aclose()

    async def test_a_code_expires_after_a_minute(self, weather: App, database: Database) -> None:
        code = await weather.get_code()
        async with database.transaction() as session:
            stored = (await session.scalars(select(AuthorizationCode))).one()
            assert stored.expires_at - stored.created_at == timedelta(seconds=60)
            assert code not in str(vars(stored))
            stored.expires_at = datetime.now(UTC)

        assert_refused(await weather.exchange(code), "invalid_grant")

    async def test_a_refresh_token_works_at_its_own_app_only(
        self, weather: App, client: AsyncClient, as_ada: Headers, app: FastAPI
    ) -> None:
        other = await register_app(client, as_ada, app, name="Other")
        tokens = await weather.get_tokens()

        assert_refused(await other.refresh(tokens["refresh_token"]), "invalid_grant")

        assert_refused(await weather.refresh(tokens["refresh_token"]), "invalid_grant")
        info = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
        assert info.status_code == 401
        await other.browser.aclose()

    async def test_a_refreshed_token_keeps_its_client_and_may_have_less_scope(
        self, weather: App, client: AsyncClient
    ) -> None:
        tokens = await weather.get_tokens()

        narrow = (await weather.refresh(tokens["refresh_token"], scope="openid")).json()
        wider = await weather.refresh(narrow["refresh_token"], scope="openid admin")

        claims = jwt.get_unverified_claims(narrow["access_token"])
        assert (narrow["scope"], claims["client_id"]) == ("openid", weather.client_id)
        assert_refused(wider, "invalid_scope")

    async def test_the_first_party_client_cannot_use_an_apps_refresh_token(
        self, weather: App, client: AsyncClient
    ) -> None:
        tokens = await weather.get_tokens()

        answer = await client.post(
            "/token",
            data={"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]},
        )

        assert_refused(answer, "invalid_grant")

    async def test_revoking_the_refresh_token_revokes_the_access_tokens(
        self, weather: App, client: AsyncClient, database: Database
    ) -> None:
        tokens = await weather.get_tokens()

        await client.post("/revoke", data={"token": tokens["refresh_token"]})

        info = await client.get("/userinfo", headers=bearer(tokens["access_token"]))
        assert info.status_code == 401
        assert await count(database, FamilyToken) == 1  # cleaned up when it expires
