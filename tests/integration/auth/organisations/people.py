"""People and their organisations, for the tests of both."""

from dataclasses import dataclass
from typing import Any

import httpx
from httpx import AsyncClient
from jose import jwt

from tests.integration.auth.conftest import PASSWORD, Headers, bearer

GRACE = "grace@example.com"
BOB = "bob@example.com"
EVE = "eve@example.com"
NOBODY = "00000000-0000-4000-8000-000000000000"
"""The id of no user and no organisation."""


@dataclass(frozen=True)
class Person:
    """A registered user who has signed in to the personal account."""

    id: str
    email: str
    headers: Headers
    client: AsyncClient

    async def sign_in(self, account: str | None = None, **form: str) -> httpx.Response:
        """Request a token for an account."""
        chosen = {} if account is None else {"account": account}
        return await sign_in(self.client, self.email, **chosen, **form)

    async def token(self, account: str, **form: str) -> str:
        answer = await self.sign_in(account, **form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def acting_for(self, account: str, **form: str) -> Headers:
        return bearer(await self.token(account, **form))

    async def create_organisation(self, name: str = "Analytical Engines") -> str:
        """Create an organisation; return its id."""
        answer = await self.client.post("/organisations", json={"name": name}, headers=self.headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def put(self, organisation: str, email: str, role: str) -> httpx.Response:
        """Add, invite or change a member."""
        return await self.client.put(
            f"/organisations/{organisation}/members",
            json={"email": email, "role": role},
            headers=self.headers,
        )

    async def remove(self, organisation: str, user_id: str) -> httpx.Response:
        path = f"/organisations/{organisation}/members/{user_id}"
        return await self.client.delete(path, headers=self.headers)

    async def members(self, organisation: str) -> dict[str, Any]:
        answer = await self.client.get(
            f"/organisations/{organisation}/members", headers=self.headers
        )
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def roles(self, organisation: str) -> dict[str, str]:
        """Return the role of each member by e-mail address."""
        members = (await self.members(organisation))["members"]
        return {each["email"]: each["role"] for each in members}

    async def own_roles(self) -> dict[str, str]:
        """Return the person's role in each organisation, by name."""
        answer = await self.client.get("/organisations", headers=self.headers)
        return {each["name"]: each["role"] for each in answer.json()["organisations"]}


async def sign_in(client: AsyncClient, email: str, **form: str) -> httpx.Response:
    fields = {"grant_type": "password", "username": email, "password": PASSWORD}
    return await client.post("/token", data=fields | form)


async def sign_up(client: AsyncClient, email: str) -> Person:
    """Register a user and sign in."""
    answer = await client.post("/register", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return await signed_in(client, email)


async def signed_in(client: AsyncClient, email: str) -> Person:
    """Sign in a user who is registered."""
    token = (await sign_in(client, email)).json()["access_token"]
    user_id = str(jwt.get_unverified_claims(token)["user_id"])
    return Person(user_id, email, bearer(token), client)


def claims_in(answer: httpx.Response) -> dict[str, Any]:
    """Return the claims of the access token in a response."""
    claims: dict[str, Any] = jwt.get_unverified_claims(answer.json()["access_token"])
    return claims


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:tollgate:problem:{code}")
