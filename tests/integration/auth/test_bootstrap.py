"""The users and clients that `python -m services.auth migrate` creates."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import SecretStr

from services.auth.bootstrap import create_first_users
from services.auth.settings import AuthSettings, FirstPartyClient
from tests.integration.auth.conftest import SignIn

EMAIL = "admin@tollgate.example"
PASSWORD = "a first password"
SECRET = "s" * 32

Ensure = Callable[..., Awaitable[None]]


@pytest.fixture
def ensure(database_url: str, app: FastAPI) -> Ensure:
    """`await ensure(admin_password=…)` runs the command with these settings."""

    async def ensure_(
        admin_email: str = EMAIL,
        admin_password: str = PASSWORD,
        inference_client_secret: str = SECRET,
        **more: Any,
    ) -> None:
        configured = AuthSettings(
            database_url=SecretStr(database_url),
            admin_email=admin_email,
            admin_password=SecretStr(admin_password),
            inference_client_id="inference",
            inference_client_secret=SecretStr(inference_client_secret),
            **more,
        )
        await asyncio.to_thread(create_first_users, configured)

    return ensure_


async def service_token(client: AsyncClient, secret: str) -> int:
    form = {"grant_type": "client_credentials", "client_id": "inference", "client_secret": secret}
    answer = await client.post("/token", data=form)
    assert answer.status_code != 200 or answer.json()["scope"] == "billing:write"
    return answer.status_code


class TestFirstPartyClients:
    async def test_they_are_created_and_updated(self, ensure: Ensure, client: AsyncClient) -> None:
        query = {"client_id": "console", "redirect_uri": "https://two.example.com/"}
        answers = []
        for uri in ("https://one.example.com/", "https://two.example.com/"):
            await ensure(
                first_party_clients=(FirstPartyClient(client_id="console", redirect_uris=(uri,)),)
            )
            answers.append((await client.get("/authorize", params=query)).status_code)

        assert answers == [400, 303]  # the second learns at its redirect URI what is missing


class TestFirstUsers:
    async def test_the_administrator_and_the_service_can_sign_in(
        self, ensure: Ensure, client: AsyncClient, sign_in: SignIn
    ) -> None:
        await ensure()
        await ensure()

        answer = await sign_in(username=EMAIL, password=PASSWORD)
        assert "admin" in answer.json()["scope"].split()
        assert await service_token(client, SECRET) == 200

    @pytest.mark.costly
    async def test_changed_secrets_replace_the_old_ones(
        self, ensure: Ensure, client: AsyncClient, sign_in: SignIn
    ) -> None:
        await ensure()
        await ensure(admin_password="a second password", inference_client_secret="t" * 32)

        assert (await sign_in(username=EMAIL, password=PASSWORD)).status_code == 400
        assert (await sign_in(username=EMAIL, password="a second password")).status_code == 200
        assert await service_token(client, SECRET) == 401
        assert await service_token(client, "t" * 32) == 200

    async def test_no_administrator_is_created_unless_configured(
        self, ensure: Ensure, client: AsyncClient, sign_in: SignIn
    ) -> None:
        await ensure(admin_password="")

        assert (await sign_in(username=EMAIL, password=PASSWORD)).status_code == 400
        assert await service_token(client, SECRET) == 200

    @pytest.mark.parametrize(
        ("settings", "line"),
        [
            ({"admin_email": "nobody"}, "error: AUTH_ADMIN_EMAIL: "),
            ({"admin_password": "short"}, "error: AUTH_ADMIN_PASSWORD: "),
        ],
    )
    async def test_an_invalid_value_is_reported_on_one_line(
        self,
        ensure: Ensure,
        capsys: pytest.CaptureFixture[str],
        settings: dict[str, str],
        line: str,
    ) -> None:
        with pytest.raises(SystemExit) as stopped:
            await ensure(**settings)

        stderr = capsys.readouterr().err
        assert stopped.value.code == 2
        assert stderr.startswith(line)
        assert stderr.count("\n") == 1
