"""The second factor: codes of an authenticator app, and recovery codes."""

import asyncio
import base64
import os

import pyotp
import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import update

from services.auth.models import RecoveryCode, User
from services.auth.users import totp as totp_module
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADA,
    NEW_PASSWORD,
    Headers,
    SignIn,
    actions_on,
    assert_refused,
    count,
    next_mail,
    token_in,
)

pytestmark = pytest.mark.any_database


class TestSecondFactor:
    """At a fixed time, which is the beginning of a step."""

    STEP = 60_000_000

    @pytest.fixture(autouse=True)
    def stopped_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(totp_module, "time", lambda: self.STEP * totp_module.STEP_S)

    async def enrol(self, client: AsyncClient, headers: Headers) -> tuple[pyotp.TOTP, list[str]]:
        """Turn the second factor on; return the app's generator and the recovery codes."""
        started = (await client.post("/users/me/totp", headers=headers)).json()
        assert started["uri"].startswith("otpauth://totp/Tollgate:")
        totp = pyotp.TOTP(started["secret"])
        code = totp.generate_otp(self.STEP - 1)
        confirmed = await client.post(
            "/users/me/totp/confirm", json={"code": code}, headers=headers
        )
        assert confirmed.status_code == 204
        return totp, started["recovery_codes"]

    async def test_a_sign_in_needs_a_code_and_each_code_is_good_once(
        self, client: AsyncClient, as_ada: Headers, sign_in: SignIn
    ) -> None:
        totp, _ = await self.enrol(client, as_ada)
        code = totp.generate_otp(self.STEP)

        assert_refused(await sign_in(), "mfa_required", 403)
        assert (await sign_in(totp=code)).status_code == 200
        assert_refused(await sign_in(totp=code), "invalid_grant")
        assert_refused(await sign_in(totp=totp.generate_otp(self.STEP - 1)), "invalid_grant")

    @pytest.mark.every_database
    async def test_concurrent_uses_of_a_code_succeed_once(
        self, client: AsyncClient, as_ada: Headers, sign_in: SignIn
    ) -> None:
        totp, codes = await self.enrol(client, as_ada)

        for code in (totp.generate_otp(self.STEP), codes[0]):
            answers = await asyncio.gather(*(sign_in(totp=code) for _ in range(4)))

            assert sorted(each.status_code for each in answers) == [200, 400, 400, 400]

    async def test_a_recovery_code_works_once_in_any_spelling(
        self,
        client: AsyncClient,
        ada: dict[str, str],
        as_ada: Headers,
        sign_in: SignIn,
        as_admin: Headers,
    ) -> None:
        _, codes = await self.enrol(client, as_ada)

        assert len(set(codes)) == 10
        assert (await sign_in(totp=codes[0].upper().replace("-", " "))).status_code == 200
        assert_refused(await sign_in(totp=codes[0]), "invalid_grant")
        assert (await sign_in(totp=codes[1])).status_code == 200
        assert "recovery_code_used" in await actions_on(client, as_admin, ada["id"])

    async def test_a_wrong_password_with_a_right_code_does_not_use_it_up(
        self, client: AsyncClient, as_ada: Headers, sign_in: SignIn
    ) -> None:
        _, codes = await self.enrol(client, as_ada)

        assert_refused(await sign_in(password="wrong password", totp=codes[0]), "invalid_grant")
        assert_refused(await sign_in(password="wrong password"), "invalid_grant")
        assert (await sign_in(totp=codes[0])).status_code == 200

    async def test_wrong_codes_count_as_failed_sign_ins(
        self, client: AsyncClient, as_ada: Headers, sign_in: SignIn
    ) -> None:
        _, codes = await self.enrol(client, as_ada)

        answers = [await sign_in(totp=f"wrong {n}") for n in range(10)]

        assert {each.status_code for each in answers} == {400}
        assert (await sign_in(totp=codes[0])).status_code == 429

    async def test_until_it_is_confirmed_sign_ins_need_no_code(
        self, client: AsyncClient, as_ada: Headers, sign_in: SignIn
    ) -> None:
        await client.post("/users/me/totp", headers=as_ada)

        wrong = await client.post("/users/me/totp/confirm", json={"code": "0"}, headers=as_ada)

        assert wrong.status_code == 422
        assert (await sign_in()).status_code == 200

    async def test_it_must_be_turned_off_before_it_is_replaced(
        self,
        app: FastAPI,
        client: AsyncClient,
        as_ada: Headers,
        sign_in: SignIn,
        database: Database,
    ) -> None:
        await self.enrol(client, as_ada)

        again = await client.post("/users/me/totp", headers=as_ada)
        off = await client.delete("/users/me/totp", headers=as_ada)

        assert (again.status_code, off.status_code) == (409, 204)
        assert (await sign_in()).status_code == 200
        assert await count(database, RecoveryCode) == 0
        await next_mail(app, to=ADA, subject="second factor")

    async def test_a_reset_password_does_not_turn_it_off(
        self, app: FastAPI, client: AsyncClient, as_ada: Headers, sign_in: SignIn
    ) -> None:
        await self.enrol(client, as_ada)
        await client.post("/password-reset", json={"email": ADA})
        token = token_in(await next_mail(app, to=ADA, subject="Reset your password"))
        body = {"token": token, "password": NEW_PASSWORD}
        await client.post("/password-reset/confirm", json=body)

        assert_refused(await sign_in(password=NEW_PASSWORD), "mfa_required", 403)

    async def test_the_secret_is_encrypted_at_rest_for_its_user_only(
        self,
        app: FastAPI,
        client: AsyncClient,
        ada: dict[str, str],
        as_ada: Headers,
        database: Database,
    ) -> None:
        totp, _ = await self.enrol(client, as_ada)

        async with database.snapshot() as session:
            user = await session.get_one(User, ada["id"])
        stored = user.totp_secret or ""

        assert len(stored) == 64
        assert totp.secret not in stored
        decrypted = app.state.vault.decrypt(stored, owner=ada["id"])
        assert base64.b32encode(decrypted).decode() == totp.secret
        with pytest.raises(ValueError, match="wrong key"):
            app.state.vault.decrypt(stored, owner="another user")

    async def test_if_the_secret_cannot_be_decrypted_a_recovery_code_still_works(
        self, client: AsyncClient, as_ada: Headers, sign_in: SignIn, database: Database
    ) -> None:
        totp, codes = await self.enrol(client, as_ada)
        async with database.transaction() as session:
            other_secret = base64.b64encode(os.urandom(48)).decode()
            await session.execute(update(User).values(totp_secret=other_secret))

        assert_refused(await sign_in(totp=totp.generate_otp(self.STEP)), "invalid_grant")
        assert (await sign_in(totp=codes[0])).status_code == 200
