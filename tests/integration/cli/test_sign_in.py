"""`tollgate login`, `logout` and `token`, with a real auth service."""

import asyncio
import json
import stat
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from jose import jwt
from typer.testing import CliRunner, Result

from cli.main import app
from cli.sign_in import commands, stored
from cli.sign_in.device import Prompt
from harness.auth import EMAIL, PASSWORD, RunningAuth, running_auth
from harness.waiting import eventually_async
from services.auth.bootstrap import ensure_first_party_clients
from services.auth.settings import AuthSettings
from services.common.contracts import COMMAND_CLIENT
from tests.integration.auth.openid.signing_in import App
from tests.integration.auth.pages import Page

ISSUER = "http://auth"


class Route(httpx.HTTPTransport):
    """Sends what is meant for the issuer to where it really listens."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = httpx.URL(url)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host=self._url.host, port=self._url.port)
        return super().handle_request(request)


@pytest.fixture(scope="module")
async def auth(
    new_database_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningAuth]:
    home = tmp_path_factory.mktemp("auth")
    async with running_auth(new_database_url("sqlite"), home) as running:
        async with running.database.transaction() as session:
            await ensure_first_party_clients(session, AuthSettings(home=home))
        yield running


class Command:
    """The command on a machine, and what its person sees and does."""

    def __init__(self, auth: RunningAuth, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.waits: list[float] = []
        self.prompt: Prompt | None = None
        self._auth = auth
        self._decided = threading.Event()
        monkeypatch.setattr(stored, "tokens_path", lambda: path)
        monkeypatch.setattr(commands, "sleep", self._sleep)
        monkeypatch.setattr(commands, "_show", self._show)
        monkeypatch.setattr(
            commands, "_http", lambda: httpx.Client(transport=Route(auth.url), timeout=60)
        )

    def _show(self, prompt: Prompt) -> None:
        self.prompt = prompt

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        assert self._decided.wait(60)

    async def run(self, name: str) -> Result:
        arguments = [name, "--issuer", f"{ISSUER}/"]
        return await asyncio.to_thread(CliRunner().invoke, app, arguments)

    async def decide(self, decision: str) -> None:
        """Do what the prompt says, in a browser."""
        await eventually_async(lambda: self.prompt is not None)
        assert self.prompt is not None
        url = self.prompt.complete_address.removeprefix(ISSUER)
        async with httpx.AsyncClient(base_url=self._auth.url, timeout=60) as browser:
            person = App(COMMAND_CLIENT, browser)
            shown = await browser.get(url)
            entering = await person.sign_in(shown, email=EMAIL, password=PASSWORD)
            confirming = await person.send(entering)
            assert Page(confirming).actions == ["/device/confirm"]
            await person.send(confirming, decision=decision)
        self._decided.set()

    async def sign_in(self, decision: str = "allow") -> Result:
        result, _ = await asyncio.gather(self.run("login"), self.decide(decision))
        return result

    def stored(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.path.read_text())[ISSUER]
        return document


def token_in(printed: Result) -> str:
    """Return the token among what was printed; the server in this process logs there, too."""
    [token] = [line for line in printed.stdout.splitlines() if line.startswith("eyJ")]
    return token


@pytest.fixture
def command(auth: RunningAuth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(auth, tmp_path / "tollgate" / "tokens.json", monkeypatch)


@pytest.mark.costly
async def test_a_person_signs_in_and_uses_a_token(command: Command, auth: RunningAuth) -> None:
    signed_in = await command.sign_in()
    printed = await command.run("token")

    assert signed_in.exit_code == 0, signed_in.output
    assert command.prompt is not None
    assert command.prompt.address == f"{ISSUER}/device"
    assert command.waits == [5]
    assert stat.S_IMODE(command.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(command.path.parent.stat().st_mode) == 0o700
    token = token_in(printed)
    assert token == command.stored()["access_token"]
    own = await auth.http.get(f"{auth.url}/users/me", headers={"Authorization": f"Bearer {token}"})
    assert own.json()["email"] == EMAIL
    assert [each.name for each in command.path.parent.iterdir() if each.suffix == ".json"]


@pytest.mark.costly
async def test_an_old_token_is_refreshed_when_used(command: Command) -> None:
    await command.sign_in()
    before = stored.load(ISSUER)
    assert before is not None
    stored.save(ISSUER, replace(before, expires_at=0))

    results = [await command.run("token") for _ in range(3)]

    assert {each.exit_code for each in results} == {0}
    [token] = {token_in(each) for each in results}  # refreshed once
    assert token != before.access_token
    assert jwt.get_unverified_claims(token)["client_id"] == COMMAND_CLIENT
    assert command.stored()["refresh_token"] != before.refresh_token


async def test_logging_out_revokes_and_forgets_the_tokens(
    command: Command, auth: RunningAuth
) -> None:
    await command.sign_in()
    token = command.stored()["access_token"]

    ended = await command.run("logout")
    again = await command.run("logout")
    printed = await command.run("token")

    assert (ended.exit_code, again.exit_code, printed.exit_code) == (0, 0, 1)
    assert "run `tollgate login`" in printed.stderr
    assert json.loads(command.path.read_text()) == {}
    own = await auth.http.get(f"{auth.url}/users/me", headers={"Authorization": f"Bearer {token}"})
    assert own.status_code == 401


async def test_a_denied_sign_in_is_an_error(command: Command) -> None:
    denied = await command.sign_in("deny")

    assert denied.exit_code == 1
    assert denied.stderr.endswith("error: You denied the request.\n")  # auth logs there, too
    assert not command.path.exists()


async def test_an_ended_sign_in_says_what_to_do(command: Command) -> None:
    await command.sign_in()
    tokens = stored.load(ISSUER)
    assert tokens is not None
    stored.save(ISSUER, replace(tokens, refresh_token="x.y", expires_at=0))

    ended = await command.run("token")

    assert ended.exit_code == 1
    assert "run `tollgate login`" in ended.stderr


async def test_without_a_provider_one_line_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = httpx.Client(transport=Route("http://127.0.0.1:1"))
    monkeypatch.setattr(commands, "_http", lambda: refused)

    failed = await command.run("login")

    assert (failed.exit_code, failed.stderr.count("\n")) == (1, 1)
    assert "No OpenID provider answers at http://auth." in failed.stderr


@pytest.mark.parametrize("content", ["", "{", "[]", '{"http://auth": {"x": 1}}'])
async def test_a_damaged_file_counts_as_signed_out(command: Command, content: str) -> None:
    command.path.parent.mkdir(parents=True)
    command.path.write_text(content)

    printed = await command.run("token")

    assert printed.exit_code == 1
    assert "You are not signed in" in printed.stderr
