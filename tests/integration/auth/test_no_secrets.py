"""Secrets that callers send or get appear in no log, metric, trace, error or audit entry."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response

from harness.logs import logging_as
from harness.otlp_collector import Collector, collecting
from services.common.telemetry import open_tracing
from tests.integration.auth.conftest import (
    ADA,
    PASSWORD,
    Headers,
    OpenApp,
    bearer,
    browse,
    next_mail,
    token_in,
)

pytestmark = pytest.mark.any_database

WRONG = "canary-wrong-5f2d"
NEW = "canary new password 8c1e"


class Witness:
    """Collects the secrets of a test, and everything that must not contain them."""

    def __init__(self) -> None:
        self.secrets = {PASSWORD, WRONG, NEW}
        self.refusals: list[str] = []

    def saw(self, answer: Response) -> Response:
        """Remember a response if it is an error."""
        if answer.status_code >= 400:
            self.refusals.append(f"{answer.headers}{answer.text}")
        return answer

    def keep(self, *secrets: str) -> None:
        """Remember secrets that callers got."""
        self.secrets |= {each for each in secrets if each}

    def leaks_in(self, text: str) -> list[str]:
        """Return the secrets in a text, as they are, in base64, or the signature of a token."""
        forms = {
            form: secret
            for secret in self.secrets
            for form in (secret, base64.b64encode(secret.encode()).decode(), secret.split(".")[-1])
        }
        return sorted({secret for form, secret in forms.items() if form in text})


async def refuse_everything(client: AsyncClient, witness: Witness, headers: Headers) -> None:
    """Send wrong secrets to every route that takes one."""
    forms: list[tuple[str, dict[str, str]]] = [
        ("/token", {"grant_type": "password", "username": ADA, "password": WRONG}),
        ("/token", {"grant_type": "password", "username": "no@example.com", "password": WRONG}),
        ("/token", {"grant_type": "refresh_token", "refresh_token": WRONG}),
        ("/token", {"grant_type": WRONG, "password": WRONG}),
        ("/token", {"grant_type": "client_credentials", "client_id": "x", "client_secret": WRONG}),
        (
            "/token",
            {"grant_type": "password", "username": ADA, "password": PASSWORD, "totp": WRONG},
        ),
        ("/introspect", {"token": WRONG, "client_id": "x", "client_secret": WRONG}),
        ("/revoke", {"token": WRONG, "client_id": "x", "client_secret": WRONG}),
        ("/revoke", {"token": WRONG}),
        ("/password-reset/page", {"token": WRONG, "password": NEW}),
        ("/verify-email/page", {"token": WRONG}),
        ("/register/page", {"token": WRONG, "password": NEW}),
    ]
    for path, form in forms:
        witness.saw(await client.post(path, data=form))
    basic = base64.b64encode(f"x:{WRONG}".encode()).decode()
    witness.saw(await client.post("/token", headers={"Authorization": f"Basic {basic}"}))
    bodies: list[tuple[str, Any]] = [
        ("/register", {"email": "no e-mail", "password": WRONG}),
        ("/register", {"email": ADA, "password": WRONG, WRONG[:9]: 1}),
        ("/password-reset/confirm", {"token": WRONG, "password": NEW}),
        ("/password-reset/confirm", {"token": [WRONG], "password": NEW}),
        ("/verify-email", {"token": WRONG}),
        ("/users/me/password", {"current": WRONG, "new": NEW}),
        ("/users/me/totp/confirm", {"code": WRONG}),
        ("/api-keys", {"name": 5, "key": WRONG}),
        ("/clients", {"name": [WRONG]}),
    ]
    for path, body in bodies:
        witness.saw(await client.post(path, json=body, headers=headers))
        witness.saw(await client.post(path, content=json.dumps(body)[:-1], headers=headers))
    for sent in ({"Authorization": f"Bearer {WRONG}"}, {"X-API-Key": f"tg_live_{WRONG}"}):
        witness.saw(await client.get("/userinfo", headers=sent))
        witness.saw(await client.get(f"/users/me/export?access_token={WRONG}", headers=sent))
    for path in ("/register", "/password-reset", "/verify-email"):
        witness.saw(await client.get(path, params={"token": WRONG}))


async def succeed_everywhere(client: AsyncClient, app: FastAPI, witness: Witness) -> Headers:
    """Use every kind of secret as its owner does; return the headers of Ada's last token."""
    await client.post("/register", json={"email": ADA, "password": PASSWORD})
    granted = await _sign_in(client, witness)
    headers = bearer(granted["access_token"])
    refreshed = await client.post(
        "/token", data={"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
    )
    witness.keep(refreshed.json()["access_token"], refreshed.json()["refresh_token"])
    await client.post(
        "/token", data={"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
    )
    machine = (await client.post("/clients", json={"name": "m"}, headers=headers)).json()
    key = (await client.post("/api-keys", json={"name": "k"}, headers=headers)).json()
    rotated = await client.post(f"/api-keys/{key['id']}/rotate", json={}, headers=headers)
    witness.keep(machine["client_secret"], key["key"], rotated.json()["key"])
    auth = (machine["client_id"], machine["client_secret"])
    as_machine = await client.post("/token", data={"grant_type": "client_credentials"}, auth=auth)
    witness.keep(as_machine.json()["access_token"])
    for token in (rotated.json()["key"], granted["access_token"]):
        await client.post("/introspect", data={"token": token}, auth=auth)
    await client.post("/revoke", data={"token": as_machine.json()["access_token"]})
    enrolment = (await client.post("/users/me/totp", headers=headers)).json()
    witness.keep(enrolment["secret"], *enrolment["recovery_codes"])
    await client.post("/password-reset", json={"email": ADA})
    link = token_in(await next_mail(app, to=ADA, subject="password"))
    witness.keep(link)
    await client.get("/password-reset", params={"token": link})
    changed = await client.post(
        "/password-reset/confirm", json={"token": link, "password": PASSWORD}
    )
    assert changed.status_code == 204
    return bearer((await _sign_in(client, witness))["access_token"])


async def _sign_in(client: AsyncClient, witness: Witness) -> dict[str, str]:
    form = {"grant_type": "password", "username": ADA, "password": PASSWORD}
    granted: dict[str, str] = (await client.post("/token", data=form)).json()
    witness.keep(granted["access_token"], granted["refresh_token"])
    return granted


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.mark.costly
async def test_no_secret_leaves_a_trace(
    app: FastAPI,
    open_app: OpenApp,
    as_admin: Headers,
    collector: Collector,
    capsys: pytest.CaptureFixture[str],
) -> None:
    witness = Witness()
    tracing = open_tracing("auth", endpoint=collector.url)

    with logging_as("auth"):
        async with open_app(tracing=tracing) as traced, browse(traced) as client:
            headers = await succeed_everywhere(client, traced, witness)
            await refuse_everything(client, witness, headers)
            audit = await client.get("/audit", params={"limit": 1000}, headers=as_admin)
            metrics = await client.get("/metrics")
    witness.keep(as_admin["Authorization"].removeprefix("Bearer "))
    logged = capsys.readouterr().err

    assert len(witness.secrets) > 20
    assert len(witness.refusals) > 30
    assert len(audit.json()["entries"]) > 15
    assert logged.count("request_completed") > 50
    assert len(collector.spans) > 50
    assert witness.leaks_in(f"a {PASSWORD}") == [PASSWORD]
    for text in (logged, metrics.text, audit.text, *collector.texts, *witness.refusals):
        assert witness.leaks_in(text) == []
