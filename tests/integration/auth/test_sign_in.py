"""What a sign-in checks again after the password, which takes a while to verify."""

from datetime import UTC, datetime
from typing import Any, NoReturn

import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.tokens.attempts import login_keys
from services.auth.tokens.errors import TooManyAttempts
from services.auth.tokens.guesses import count_failure
from services.auth.tokens.password_grant import sign_in
from services.auth.users.service import find_user
from services.auth.users.shapes import LoginUser
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, PASSWORD

ADDRESS = "192.0.2.1"


async def never(session: AsyncSession, user: LoginUser) -> NoReturn:
    pytest.fail("the sign-in went on")


@pytest.mark.parametrize("has_second_factor", [False, True])
async def test_a_limit_reached_meanwhile_refuses_the_right_password(
    app: FastAPI,
    database: Database,
    ada: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    has_second_factor: bool,
) -> None:
    issuer = app.state.issuer
    verify = issuer.hasher.verify

    async def verify_while_others_guess(*arguments: Any) -> bool:
        async with database.transaction() as session:
            for _ in range(issuer.limits.attempts):
                keys = login_keys(ADA, client=ADDRESS)
                await count_failure(session, keys=keys, limits=issuer.limits, known=False)
        return bool(await verify(*arguments))

    if has_second_factor:
        async with database.transaction() as session:
            user = await find_user(session, user_id=ada["id"])
            assert user is not None
            user.totp_confirmed_at = datetime.now(UTC)
    monkeypatch.setattr(issuer.hasher, "verify", verify_while_others_guess)

    with pytest.raises(TooManyAttempts):
        await sign_in(
            issuer,
            username=ADA,
            password=PASSWORD,
            code=None,
            address=ADDRESS,
            then=never,
            without_code=never,
        )
