"""What the console asks auth."""

from dataclasses import dataclass
from typing import Any

from services.console.apis.calls import Api, read_json

_PATIENCE_S = 1.0
"""How long a page waits for what it can do without."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a sign-in or registration."""

    access_token: str
    expires_in: int
    scope: str
    id_token: str | None = None


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation that the visitor is a member of."""

    id: str
    name: str
    role: str


async def exchange_code(
    auth: Api, *, client_id: str, code: str, verifier: str, redirect_uri: str
) -> Tokens:
    """Exchange an authorization code for tokens (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
    return await _request_tokens(
        auth,
        grant_type="authorization_code",
        client_id=client_id,
        code=code,
        code_verifier=verifier,
        redirect_uri=redirect_uri,
    )


async def sign_in(auth: Api, *, email: str, password: str) -> Tokens:
    """Sign someone in who has just registered."""
    return await _request_tokens(auth, grant_type="password", username=email, password=password)


async def revoke(auth: Api, *, token: str) -> None:
    """Revoke an access token (RFC 7009)."""
    await auth.call("POST", "/revoke", data={"token": token})


async def find_keys(auth: Api) -> dict[str, Any]:
    """Return the keys that verify auth's tokens, as a JWK set."""
    document: dict[str, Any] = await auth.get("/.well-known/jwks.json")
    return document


async def list_providers(auth: Api) -> list[str]:
    """Return the names of the companies' providers with which people may sign in."""
    document = await auth.get("/.well-known/openid-configuration", timeout=_PATIENCE_S)
    names: list[str] = document.get("identity_providers", [])
    return names


async def register(auth: Api, *, email: str, password: str) -> bool:
    """Register a user; return whether they can sign in at once, or must first confirm by mail."""
    response = await auth.call("POST", "/register", json={"email": email, "password": password})
    return response.status_code == 201


async def read_user(auth: Api, *, token: str) -> dict[str, Any]:
    """Return the visitor's own record: `id`, `email` and perhaps `name`."""
    user: dict[str, Any] = await auth.get("/users/me", token=token)
    return user


async def rename_user(auth: Api, *, token: str, name: str) -> None:
    """Set the visitor's name."""
    await auth.call("PATCH", "/users/me", token=token, json={"name": name})


async def list_organisations(auth: Api, *, token: str) -> list[Organisation]:
    """Return the organisations that the visitor is a member of."""
    document = await auth.get("/organisations", token=token)
    return [
        Organisation(each["id"], each["name"], each["role"]) for each in document["organisations"]
    ]


async def _request_tokens(auth: Api, **form: str) -> Tokens:
    response = await auth.call("POST", "/token", data=form)
    document = read_json(response, api=auth.name)
    return Tokens(
        access_token=document["access_token"],
        expires_in=document["expires_in"],
        scope=document["scope"],
        id_token=document.get("id_token"),
    )
