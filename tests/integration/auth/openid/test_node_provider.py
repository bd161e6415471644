"""Sign in with a real provider of another make: `oidc-provider` on Node.js."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from harness.clients import PLAIN
from services.auth.models import User
from services.auth.settings import ProviderSettings
from services.common.db.database import Database
from tests.integration.auth.conftest import ISSUER, OpenApp, browse
from tests.integration.auth.openid.node import install
from tests.integration.auth.openid.signing_in import App
from tests.integration.auth.pages import Page

FOLDER = Path(__file__).parent / "node_provider"
CLIENT_ID, SECRET = "tollgate", "a secret: with signs"
CALLBACK = f"{ISSUER}/sign-in/callback/Example%20Corp"

pytestmark = pytest.mark.slow  # npm installs 40 packages


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[str]:
    """The issuer of a running provider."""
    folder = tmp_path / "provider"
    node = await install(FOLDER, folder)
    process = await asyncio.create_subprocess_exec(
        *(node, "provider.js", CLIENT_ID, SECRET, CALLBACK),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            issuer = (await process.stdout.readline()).decode().strip()
        yield issuer
    finally:
        process.kill()
        await process.wait()


class Form(HTMLParser):
    """A form of the provider, and its hidden fields."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action, self.fields = "", {"login": "grace", "password": "anything"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = found["action"]
        if found.get("type") == "hidden":
            self.fields[found["name"]] = found["value"]


async def sign_in_there(url: str) -> str:
    """Go through the provider's pages; return where it sends the browser back to."""
    async with httpx.AsyncClient(trust_env=False, verify=PLAIN, timeout=60) as outside:
        answer = await outside.get(url)
        for _ in range(20):
            if answer.is_redirect:
                location = answer.headers["Location"]
                if location.startswith(ISSUER):
                    return str(location)
                answer = await outside.get(httpx.URL(url).join(location))
            else:
                form = Form(answer.text)
                answer = await outside.post(form.action, data=form.fields)
    raise AssertionError(answer.text)


async def test_a_person_signs_in_with_it(
    provider: str, weather: App, open_app: OpenApp, database: Database
) -> None:
    offered = ProviderSettings(
        name="Example Corp",
        issuer=provider,
        client_id=CLIENT_ID,
        client_secret=SecretStr(SECRET),
    )
    async with open_app(providers=(offered,)) as running, browse(running) as browser:
        person = replace(weather, browser=browser)
        _forgotten, link = Page(await person.authorize()).links
        sent = await browser.get(link)

        back = await sign_in_there(sent.headers["Location"])
        consent = await person.follow(await browser.get(back))

    assert Page(consent).actions == ["/consent"]
    async with database.snapshot() as session:
        emails = set(await session.scalars(select(User.email)))
    assert "grace@example.com" in emails
