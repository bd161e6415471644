"""An app that people sign in to, and a browser without scripts, for the tests of the pages."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import select

from harness.waiting import eventually_async
from services.auth.models import AuditEntry, PendingAuditEntry
from services.auth.pages.style import STYLE, STYLE_SOURCE
from services.common.db.database import Database
from tests.integration.auth.conftest import ADA, ISSUER, PASSWORD, Headers, browse
from tests.integration.auth.pages import Page

CALLBACK = "https://app.example.com/callback"
SIGNED_OUT = "https://app.example.com/bye"
TARGET = " https://app.example.com"
"""Where else the forms of pages that lead to the app may be sent."""
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=")


def assert_safe_page(answer: httpx.Response, *, targets: str = "") -> None:
    """Check what every page has in common: it can load, run, embed and leak nothing."""
    style = f"style-src {STYLE_SOURCE}"
    policy = f"default-src 'none'; {style}; form-action 'self'{targets}; base-uri 'none'"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == f"{policy}; frame-ancestors 'none'"
    assert answer.headers["Cache-Control"] == "no-store"
    assert '<html lang="en">' in answer.text
    assert "<title>" in answer.text
    assert answer.text.count("<h1>") == 1
    assert "<script" not in answer.text
    assert f"<style>{STYLE}</style>" in answer.text  # what the policy allows
    assert Page(answer).ids == Page(answer).labelled


@dataclass
class App:
    """A public client and its user's browser."""

    client_id: str
    browser: AsyncClient
    redirect_uri: str = CALLBACK
    state: str = "the state"

    def parameters(self, **changes: str | None) -> dict[str, str]:
        """Return those of a valid request, changed; None leaves one out."""
        valid: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid email profile predict",
            "state": self.state,
            "nonce": "the nonce",
            "code_challenge": CHALLENGE.decode(),
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in (valid | changes).items() if value is not None}

    async def authorize(self, **changes: str | None) -> httpx.Response:
        return await self.browser.get("/authorize", params=self.parameters(**changes))

    async def send(self, shown: httpx.Response, **fields: str) -> httpx.Response:
        """Fill in and send the form of a page; without following the redirect."""
        form = Page(shown)
        return await self.browser.post(form.actions[0], data=form.fields | fields)

    async def follow(self, answer: httpx.Response) -> httpx.Response:
        """Follow a redirect within auth."""
        assert answer.status_code == 303, answer.text
        location = answer.headers["Location"]
        assert location.startswith("/"), location
        return await self.browser.get(location)

    async def sign_in(
        self, shown: httpx.Response, *, email: str = ADA, password: str = PASSWORD
    ) -> httpx.Response:
        """Sign in on a page; return what follows."""
        return await self.follow(await self.send(shown, email=email, password=password))

    async def get_code(self, **changes: str | None) -> str:
        """Go through all pages as Ada; return the code."""
        answer = await self.authorize(**changes)
        if answer.status_code == 200 and "/sign-in" in Page(answer).actions:
            answer = await self.sign_in(answer)
        if answer.status_code == 200 and "/consent" in Page(answer).actions:
            answer = await self.send(answer, decision="allow")
        return self.read(answer)["code"]

    def read(self, answer: httpx.Response) -> dict[str, str]:
        """Return what the client gets by a redirect; it always has the state and the issuer."""
        assert answer.status_code == 303, answer.text
        parts = urlsplit(answer.headers["Location"])
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == self.redirect_uri
        got = dict(parse_qsl(parts.query, strict_parsing=True))
        assert got.pop("state", None) == self.state
        assert got.pop("iss") == ISSUER
        return got

    async def exchange(self, code: str, /, **changes: str | None) -> httpx.Response:
        """Exchange a code, as the client does."""
        form: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "client_id": self.client_id,
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": VERIFIER,
        }
        sent = {name: value for name, value in (form | changes).items() if value is not None}
        return await self.browser.post("/token", data=sent)

    async def refresh(self, refresh_token: str, **changes: str) -> httpx.Response:
        form = {
            "grant_type": "refresh_token",
            "client_id": self.client_id,
            "refresh_token": refresh_token,
        }
        return await self.browser.post("/token", data=form | changes)

    async def get_tokens(self, **changes: str | None) -> dict[str, Any]:
        answer = await self.exchange(await self.get_code(**changes))
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens


async def register_app(
    client: AsyncClient, headers: Headers, fastapi_app: FastAPI, **body: Any
) -> App:
    """Register a public client, and give it a browser."""
    document = {
        "name": "Weather",
        "type": "public",
        "redirect_uris": [CALLBACK],
        "post_logout_redirect_uris": [SIGNED_OUT],
    }
    answer = await client.post("/clients", json=document | body, headers=headers)
    assert answer.status_code == 201, answer.text
    assert "client_secret" not in answer.json()
    return App(answer.json()["client_id"], browse(fastapi_app))


async def wait_for_audit(database: Database, action: str, target: str | None = None) -> None:
    """Wait until an act is audited, perhaps about this target; failures are stored in batches."""

    async def is_audited() -> bool:
        async with database.snapshot() as session:
            # In this order, because entries move from the first table to the second.
            pending = await session.scalars(_targets(PendingAuditEntry, action))
            found = [*pending, *await session.scalars(_targets(AuditEntry, action))]
        return bool(found) if target is None else target in found

    await eventually_async(is_audited)


def _targets(table: type[PendingAuditEntry] | type[AuditEntry], action: str) -> Any:
    return select(table.target).where(table.action == action)
