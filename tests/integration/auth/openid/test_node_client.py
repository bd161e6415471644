"""`openid-client` on Node.js, as a client that others wrote, completes every grant of a public
client with a real process of auth."""

import asyncio
import json
import os
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from httpx import AsyncClient

from harness.clients import PLAIN
from harness.ports import free_port
from harness.waiting import eventually_async, is_ready
from tests.integration.auth.conftest import ADA, PASSWORD
from tests.integration.auth.openid.node import install
from tests.integration.auth.openid.signing_in import CALLBACK, App
from tests.integration.auth.pages import Page

FOLDER = Path(__file__).parent / "node_client"

pytestmark = pytest.mark.slow  # npm installs packages, and a device waits five seconds


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[str]:
    """The issuer of a running process of auth."""
    command, port = (sys.executable, "-m", "services.auth"), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "TOLLGATE_HOME": str(tmp_path / "home"),
        "AUTH_PORT": str(port),
    }
    migrate = [*command, "migrate"]
    await asyncio.to_thread(subprocess.run, migrate, env=environment, check=True)
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        await eventually_async(lambda: asyncio.to_thread(is_ready, url))
        yield url
    finally:
        process.kill()
        await process.communicate()


@pytest.fixture
async def weather(issuer: str) -> AsyncIterator[App]:
    """An app that Ada has registered, and her browser."""
    async with AsyncClient(base_url=issuer, trust_env=False, verify=PLAIN, timeout=60) as browser:
        person = {"email": ADA, "password": PASSWORD}
        (await browser.post("/register", json=person)).raise_for_status()
        form = {"grant_type": "password", "username": ADA, "password": PASSWORD}
        token = (await browser.post("/token", data=form)).json()["access_token"]
        app = {"name": "Weather", "type": "public", "redirect_uris": [CALLBACK]}
        headers = {"Authorization": f"Bearer {token}"}
        created = (await browser.post("/clients", json=app, headers=headers)).json()
        yield App(created["client_id"], browser)


@pytest.fixture
async def foreign(tmp_path: Path, issuer: str, weather: App) -> AsyncIterator[Process]:
    """A running `openid-client`."""
    folder = tmp_path / "client"
    node = await install(FOLDER, folder)
    process = await asyncio.create_subprocess_exec(
        *(node, "client.js", issuer, weather.client_id, CALLBACK),
        cwd=folder,
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def next_step(foreign: Process) -> dict[str, Any]:
    """Return what the client prints next."""
    assert foreign.stdout is not None
    async with asyncio.timeout(60):
        line = await foreign.stdout.readline()
    assert line, "the client failed; its error is on stderr"
    step: dict[str, Any] = json.loads(line)
    return step


def path_of(url: str, issuer: str) -> str:
    """Return the path and query of a URL of the issuer."""
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}" == issuer
    return f"{parts.path}?{parts.query}"


async def test_it_completes_every_grant_from_the_discovery_document(
    issuer: str, weather: App, foreign: Process
) -> None:
    assert foreign.stdin is not None

    asked = await next_step(foreign)
    shown = await weather.browser.get(path_of(asked["url"], issuer))
    allowed = await weather.send(await weather.sign_in(shown), decision="allow")
    foreign.stdin.write(allowed.headers["Location"].encode() + b"\n")
    signed_in, refreshed, refused = [await next_step(foreign) for _ in range(3)]
    started = await next_step(foreign)
    entering = await weather.browser.get(path_of(started["url"], issuer))
    await weather.send(await weather.send(entering), decision="allow")
    device = await next_step(foreign)
    left = await weather.browser.get(path_of(device["url"], issuer))
    again = await weather.browser.get(path_of(asked["url"], issuer))

    assert signed_in["claims"]["iss"] == issuer
    assert signed_in["claims"]["aud"] == weather.client_id
    assert signed_in["info"]["email"] == ADA
    assert refreshed["refreshed"]["sub"] == signed_in["claims"]["sub"]
    assert refused == {"reused": "invalid_grant", "ended": "invalid_grant"}
    assert device["claims"]["sub"] == signed_in["claims"]["sub"]
    assert device["revoked"] == "invalid_grant"
    assert left.status_code == 200
    assert "/sign-in" in Page(again).actions
    assert await foreign.wait() == 0
