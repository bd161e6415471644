"""A company's OpenID provider on a real socket, whose answers a test can change, and its use."""

import base64
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import SecretStr

from harness.asgi_servers import serving_app
from harness.auth_keys import key_ring_of
from harness.clients import PLAIN
from services.auth.keys import KeyRing, new_key
from services.auth.settings import ProviderSettings
from tests.integration.auth.openid.signing_in import App
from tests.integration.auth.pages import Page

CLIENT_ID = "tollgate at example"
SECRET = "s3cret:with+signs"
BASIC = base64.b64encode(b"tollgate+at+example:s3cret%3Awith%2Bsigns").decode()
EMAIL = "ada@example.com"


@dataclass
class Company:
    """The provider, and what it says about its person."""

    keys: KeyRing
    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    """Changes to the claims of ID tokens; None leaves one out."""
    info: dict[str, Any] | None = None
    """What the userinfo endpoint answers."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Changes to the discovery document."""
    answer: dict[str, str] = field(default_factory=dict)
    """Changes to the response at the authorization endpoint; empty leaves a parameter out."""
    signing: KeyRing | None = None
    """Other keys than the published ones."""
    codes: dict[str, Mapping[str, str]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

        @app.get("/.well-known/openid-configuration")
        async def discover() -> dict[str, Any]:
            return {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "jwks_uri": f"{self.issuer}/jwks",
                **self.metadata,
            }

        @app.get("/jwks")
        async def jwks() -> dict[str, Any]:
            self.calls.append("/jwks")
            return self.keys.document

        @app.get("/authorize")
        async def authorize(request: Request) -> RedirectResponse:
            asked, code = dict(request.query_params), secrets.token_urlsafe(8)
            self.codes[code] = asked
            answer = {"code": code, "state": asked["state"], **self.answer}
            sent = {name: value for name, value in answer.items() if value}
            return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(sent)}", 303)

        @app.post("/token")
        async def token(request: Request) -> Response:
            self.calls.append("/token")
            form = {key: each[0] for key, each in parse_qs((await request.body()).decode()).items()}
            asked = self.codes.pop(form.get("code", ""), None)
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if (
                asked is None
                or request.headers.get("authorization") != f"Basic {BASIC}"
                or asked["redirect_uri"] != form["redirect_uri"]
                or asked["code_challenge"] != challenge
            ):
                return JSONResponse({"error": "invalid_grant"}, 400)
            return JSONResponse({"access_token": "at", "id_token": self.id_token(asked)})

        @app.get("/userinfo")
        async def userinfo() -> Any:
            return self.info

        return app

    def id_token(self, asked: Mapping[str, str]) -> str:
        now = int(time.time())
        valid: dict[str, Any] = {
            "iss": self.issuer,
            "sub": "person-1",
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "nonce": asked["nonce"],
            "email": EMAIL,
            "email_verified": True,
            "name": "Ada of Example",
        }
        claims = {name: value for name, value in (valid | self.claims).items() if value is not None}
        return (self.signing or self.keys).sign(claims, token_type="JWT")


def new_key_ring() -> KeyRing:
    return key_ring_of([new_key()])


@asynccontextmanager
async def running_company(keys: KeyRing) -> AsyncIterator[Company]:
    """Run the provider inside the block."""
    company = Company(keys)
    async with serving_app(company.app()) as url:
        company.issuer = url
        yield company


def settings_of(company: Company) -> ProviderSettings:
    return ProviderSettings(
        name="Example Corp",
        issuer=company.issuer,
        client_id=CLIENT_ID,
        client_secret=SecretStr(SECRET),
    )


async def go_to_company(person: App) -> str:
    """Choose the company on the sign-in page; return where it sends the browser back to."""
    _forgotten, link = Page(await person.authorize()).links
    sent = await person.browser.get(link)
    assert sent.status_code == 303, sent.text
    async with httpx.AsyncClient(trust_env=False, verify=PLAIN, timeout=60) as outside:
        back = await outside.get(sent.headers["Location"])
    location = str(back.headers["Location"])
    assert location.startswith("http://auth.test/sign-in/callback/Example%20Corp?")
    return location


async def come_back(person: App) -> httpx.Response:
    return await person.browser.get(await go_to_company(person))


async def come_back_as_stranger(person: App) -> httpx.Response:
    """Sign in with the company in a browser that has forgotten everything."""
    person.browser.cookies.clear()
    return await come_back(person)
