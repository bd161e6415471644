"""The fake auth of these tests answers as the real service does, wherever inference asks it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from harness.auth import running_auth
from services.common.contracts import Rejection, RejectionReport
from services.common.errors import Unavailable
from services.common.http.client import http_client
from services.common.identity.api_keys import new_api_key
from services.common.identity.auth_client import AuthClient
from tests.integration.inference.neighbours import Neighbours


@dataclass(frozen=True)
class Auth:
    """Auth as inference calls it, and what a test needs besides."""

    client: AuthClient
    account: str
    new_key: Callable[..., Awaitable[str]]
    revoke_one: Callable[[], Awaitable[None]]


@pytest.fixture
async def fake(neighbours: Neighbours, account: str) -> AsyncIterator[Auth]:
    async def new_key(**limits: Any) -> str:
        return neighbours.new_key(account=account, **limits)

    async def revoke_one() -> None:
        neighbours.revoke("account", account)

    async with http_client() as http:
        secret = SecretStr("secret")
        client = AuthClient(http, auth_url=neighbours.url, client_id="x", client_secret=secret)
        yield Auth(client, account, new_key, revoke_one)


@pytest.fixture(scope="module")
async def real(
    new_database_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Auth]:
    home: Path = tmp_path_factory.mktemp("auth")
    async with running_auth(new_database_url("sqlite"), home) as started:

        async def new_key(**limits: Any) -> str:
            return str((await started.new_key(**limits))["key"])

        async def revoke_one() -> None:
            key = await started.new_key()
            await started.delete_key(key["id"])

        yield Auth(started.as_service(), started.account, new_key, revoke_one)


@pytest.fixture(params=["fake", "real"])
def auth(request: pytest.FixtureRequest) -> Auth:
    chosen: Auth = request.getfixturevalue(request.param)
    return chosen


@pytest.mark.costly
async def test_an_active_key_has_its_account_scopes_and_mode(auth: Auth) -> None:
    key = await auth.new_key(mode="test")

    found = await auth.client.introspect_key(key.encode())

    assert found is not None
    assert (found.sub, found.scope, found.mode) == (auth.account, "predict usage:read", "test")
    assert (found.models, found.allowed_ips, found.exp) == (None, None, None)


async def test_a_limited_key_has_its_limits(auth: Auth) -> None:
    key = await auth.new_key(scope="predict", models=["wine"], allowed_ips=["10.0.0.0/8"])

    found = await auth.client.introspect_key(key.encode())

    assert found is not None
    assert (found.scope, found.models, found.allowed_ips) == ("predict", ["wine"], ["10.0.0.0/8"])


async def test_an_unknown_key_is_not_active(auth: Auth) -> None:
    assert await auth.client.introspect_key(new_api_key("live").encode()) is None


@pytest.mark.costly
async def test_a_revocation_is_listed_once(auth: Auth) -> None:
    before = await auth.client.list_revocations(after=0)

    await auth.revoke_one()

    page = await auth.client.list_revocations(after=before.last)
    assert len(page.revocations) == 1
    assert page.revocations[0].until > page.revocations[0].issued_before
    assert (await auth.client.list_revocations(after=page.last)).revocations == []
    restarted = await auth.client.list_revocations(after=page.last + 1000)
    assert restarted.last == page.last
    assert restarted.revocations[-1:] == page.revocations


async def test_a_report_of_rejections_is_accepted(auth: Auth) -> None:
    rejection = Rejection(time=datetime.now(UTC), address="203.0.113.9")

    await auth.client.report_rejections(RejectionReport(rejections=[rejection], omitted=2))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://127.0.0.1:0", "http://["])
async def test_auth_that_cannot_be_reached_is_unavailable(url: str) -> None:
    async with http_client() as http:
        secret = SecretStr("secret")
        client = AuthClient(http, auth_url=url, client_id="x", client_secret=secret)

        with pytest.raises(Unavailable):
            await client.introspect_key(new_api_key("live").encode())
        with pytest.raises(Unavailable):
            await client.list_revocations(after=0)
        with pytest.raises(Unavailable):
            await client.report_rejections(RejectionReport(rejections=[], omitted=0))
