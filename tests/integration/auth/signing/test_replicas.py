"""Replicas of the app share their keys through the database."""

from collections.abc import Sequence

import pytest
from httpx import AsyncClient

from services.auth.models import SigningKey
from services.auth.signing import service
from services.common.db.database import Database
from services.common.errors import Unavailable
from tests.integration.auth.conftest import OpenApp, SignIn, browse


@pytest.mark.costly
async def test_a_replica_without_a_database_is_not_ready_until_it_has_one(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Database) -> Sequence[SigningKey]:
        raise Unavailable("The database is unavailable; retry in 1 s.")

    with monkeypatch.context() as patched:
        patched.setattr(service, "read_keys", fail)
        async with open_app() as app, browse(app) as client:
            refused = await client.get("/readyz")
            key_set = await client.get("/.well-known/jwks.json")
            patched.undo()
            ready = await client.get("/readyz")
            published = await client.get("/.well-known/jwks.json")

    assert refused.status_code == 503
    assert "signing_keys" in refused.json()["failing"]
    assert key_set.status_code == 503
    assert "Cache-Control" not in key_set.headers
    assert ready.status_code == 200
    assert len(published.json()["keys"]) == 1


async def test_replicas_of_the_app_accept_each_others_tokens(
    open_app: OpenApp, client: AsyncClient, ada: dict[str, str], sign_in: SignIn
) -> None:
    token = (await sign_in()).json()["access_token"]

    async with open_app() as other, browse(other) as there:
        answer = await there.get("/userinfo", headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 200
