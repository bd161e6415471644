"""Auth with a user and a service client, on the event loop of a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from harness.asgi_servers import serving_app
from harness.clients import PLAIN
from services.auth.app import MIGRATIONS, create_app
from services.auth.clients.credentials import ensure_service_client
from services.auth.settings import AuthSettings
from services.auth.users.service import set_disabled
from services.common.db.database import Database
from services.common.db.migrations import migrate
from services.common.identity.auth_client import AuthClient

SERVICE = ("inference", "a secret with 256 random bits")
"""The client that inference and billing call auth as."""
EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
CHEAP_KIB = 64
"""Memory of a password's hash; the default would take 30 ms for each."""


@dataclass(frozen=True)
class RunningAuth:
    """Auth with one user, whose account the API keys belong to."""

    url: str
    database: Database
    http: httpx.AsyncClient
    account: str
    headers: dict[str, str]
    """Of the user's requests."""

    def as_service(self) -> AuthClient:
        """Return a client as inference and billing have it."""
        client_id, secret = SERVICE
        return AuthClient(
            self.http, auth_url=self.url, client_id=client_id, client_secret=SecretStr(secret)
        )

    async def new_key(self, **body: object) -> dict[str, Any]:
        """Create an API key; return it as auth shows it."""
        body = {"name": "tests"} | body
        answer = await self.http.post(f"{self.url}/api-keys", json=body, headers=self.headers)
        answer.raise_for_status()
        key: dict[str, Any] = answer.json()
        return key

    async def set_disabled(self, disabled: bool) -> None:
        """Disable the user, whose tokens end with it, or enable and sign in again."""
        async with self.database.transaction() as session:
            await set_disabled(session, email=EMAIL, disabled=disabled)
        if not disabled:
            self.headers.update(await sign_in(self.http, self.url))

    async def delete_key(self, key_id: str) -> None:
        """Delete an API key."""
        answer = await self.http.delete(f"{self.url}/api-keys/{key_id}", headers=self.headers)
        answer.raise_for_status()


@asynccontextmanager
async def running_auth(database_url: str, home: Path) -> AsyncIterator[RunningAuth]:
    """Run auth inside the block on an empty database."""
    await asyncio.to_thread(migrate, database_url, MIGRATIONS)
    settings = AuthSettings(home=home, database_url=SecretStr(database_url), issuer="http://auth")
    app = create_app(settings, password_memory_kib=CHEAP_KIB)
    async with (
        serving_app(app) as url,
        httpx.AsyncClient(trust_env=False, verify=PLAIN, timeout=60) as http,
    ):
        database: Database = app.state.database
        client_id, secret = SERVICE
        async with database.transaction() as session:
            await ensure_service_client(
                session, client_id=client_id, client_secret=secret, scope="billing:write"
            )
        user = {"email": EMAIL, "password": PASSWORD}
        account = (await http.post(f"{url}/register", json=user)).json()["id"]
        yield RunningAuth(url, database, http, account, await sign_in(http, url))


async def sign_in(http: httpx.AsyncClient, url: str) -> dict[str, str]:
    """Return the headers of the user's requests."""
    form = {"grant_type": "password", "username": EMAIL, "password": PASSWORD}
    token = (await http.post(f"{url}/token", data=form)).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}
