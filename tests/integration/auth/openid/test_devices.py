"""Sign in a device without a browser."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import update

from services.auth.bootstrap import ensure_first_party_clients
from services.auth.models import User
from services.auth.openid.devices import DEVICE_GRANT, normalise_user_code
from services.auth.openid.models import DeviceCode
from services.common.contracts import COMMAND_CLIENT
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADA,
    NEW_PASSWORD,
    OWNER_SCOPE,
    PASSWORD,
    Headers,
    assert_refused,
    bearer,
    browse,
    count,
)
from tests.integration.auth.openid.signing_in import (
    App,
    assert_safe_page,
    register_app,
    wait_for_audit,
)
from tests.integration.auth.pages import Page

pytestmark = pytest.mark.any_database


@pytest.fixture
async def command(app: FastAPI, database: Database) -> AsyncIterator[App]:
    """The command line as a client, and a browser of the person who runs it."""
    async with database.transaction() as session:
        await ensure_first_party_clients(session, app.state.issuer.settings)
    async with browse(app) as browser:
        yield App(COMMAND_CLIENT, browser)


async def start(client: AsyncClient, client_id: str = COMMAND_CLIENT, **form: str) -> Any:
    answer = await client.post("/device_authorization", data={"client_id": client_id, **form})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.json()


async def poll(
    client: AsyncClient, device_code: str, client_id: str = COMMAND_CLIENT
) -> httpx.Response:
    form = {"grant_type": DEVICE_GRANT, "client_id": client_id, "device_code": device_code}
    return await client.post("/token", data=form)


async def open_device_page(person: App, url: str) -> httpx.Response:
    """Open the page that the device names, and sign in."""
    shown = await person.browser.get(url)
    return await person.sign_in(shown) if Page(shown).actions == ["/sign-in"] else shown


async def decide(person: App, started: Any, decision: str) -> httpx.Response:
    entering = await open_device_page(person, started["verification_uri_complete"])
    confirming = await person.send(entering)
    assert Page(confirming).actions == ["/device/confirm"], confirming.text
    return await person.send(confirming, decision=decision)


async def age(database: Database, **values: datetime) -> None:
    """Change the times of all devices."""
    async with database.transaction() as session:
        await session.execute(update(DeviceCode).values(**values))


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


async def test_a_person_approves_a_device_which_then_gets_tokens(
    command: App, client: AsyncClient, ada: dict[str, str]
) -> None:
    started = await start(client)
    pending = await poll(client, started["device_code"])

    approved = await decide(command, started, "allow")
    answer = await poll(client, started["device_code"])

    assert_refused(pending, "authorization_pending")
    assert_safe_page(approved)
    assert "Device approved" in approved.text
    tokens = answer.json()
    assert tokens["scope"] == OWNER_SCOPE
    own = await client.get("/users/me", headers=bearer(tokens["access_token"]))
    assert own.json()["email"] == ADA
    refreshed = await command.refresh(tokens["refresh_token"])
    assert refreshed.status_code == 200


async def test_the_response_has_what_the_standard_wants(command: App, client: AsyncClient) -> None:
    started = await start(client)

    assert started["verification_uri"] == "http://auth.test/device"
    assert started["verification_uri_complete"].endswith(f"?user_code={started['user_code']}")
    assert (started["expires_in"], started["interval"]) == (600, 5)
    assert len(started["user_code"]) == 9
    assert started["device_code"] not in started["verification_uri_complete"]


async def test_the_pages_are_safe_and_show_the_code(
    command: App, client: AsyncClient, ada: dict[str, str]
) -> None:
    started = await start(client)

    entering = await open_device_page(command, started["verification_uri_complete"])
    confirming = await command.send(entering)

    assert_safe_page(entering)
    assert_safe_page(confirming)
    assert Page(entering).fields["user_code"] == started["user_code"]
    assert started["user_code"] in confirming.text
    assert "Tollgate command line" in confirming.text
    assert "Manage API keys (" in confirming.text


async def test_a_code_may_be_typed_in_any_spelling(
    command: App, client: AsyncClient, ada: dict[str, str]
) -> None:
    started = await start(client)
    entering = await open_device_page(command, started["verification_uri"])

    confirming = await command.send(
        entering, user_code=f" {started['user_code'].lower().replace('-', ' ')} "
    )

    assert Page(confirming).actions == ["/device/confirm"]


async def test_a_denied_device_gets_nothing(
    command: App, client: AsyncClient, ada: dict[str, str], as_admin: Headers
) -> None:
    started = await start(client)

    denied = await decide(command, started, "deny")

    assert "Device denied" in denied.text
    assert_refused(await poll(client, started["device_code"]), "access_denied")
    assert_refused(await poll(client, started["device_code"]), "access_denied")


async def test_a_device_that_asks_too_often_must_slow_down(
    command: App, client: AsyncClient, database: Database
) -> None:
    started = await start(client)

    answers = [await poll(client, started["device_code"]) for _ in range(3)]
    await age(database, next_poll_at=ago(1))
    later = await poll(client, started["device_code"])

    assert_refused(answers[0], "authorization_pending")
    assert_refused(answers[1], "slow_down")
    assert_refused(answers[2], "slow_down")
    assert_refused(later, "authorization_pending")
    async with database.snapshot() as session:
        [device] = (await session.execute(DeviceCode.__table__.select())).all()
    assert device.interval_s == 15


async def test_a_device_learns_that_its_time_is_over(
    command: App, client: AsyncClient, database: Database, ada: dict[str, str]
) -> None:
    started = await start(client)
    entering = await open_device_page(command, started["verification_uri_complete"])
    await age(database, expires_at=ago(1))

    refused = await command.send(entering)

    assert_refused(await poll(client, started["device_code"]), "expired_token")
    assert refused.status_code == 400
    assert "unknown, has expired" in refused.text


@pytest.mark.every_database
async def test_a_device_code_is_good_once(
    command: App, client: AsyncClient, ada: dict[str, str]
) -> None:
    started = await start(client)
    await decide(command, started, "allow")

    answers = await asyncio.gather(*(poll(client, started["device_code"]) for _ in range(4)))

    assert sorted(each.status_code for each in answers) == [200, 400, 400, 400]
    assert_refused(await poll(client, started["device_code"]), "invalid_grant")


async def test_a_decision_is_taken_once(
    command: App, client: AsyncClient, ada: dict[str, str]
) -> None:
    started = await start(client)
    entering = await open_device_page(command, started["verification_uri_complete"])
    confirming = await command.send(entering)
    await command.send(confirming, decision="deny")

    again = await command.send(confirming, decision="allow")

    assert again.status_code == 400
    assert_refused(await poll(client, started["device_code"]), "access_denied")


@pytest.mark.parametrize("code", ["", "x", "é", "x" * 5000, "BCDF-GHJK"])
async def test_an_unknown_device_code_is_refused(
    command: App, client: AsyncClient, app: FastAPI, database: Database, code: str
) -> None:
    answer = await poll(client, code)

    assert_refused(answer, "invalid_grant" if code else "invalid_request")
    if code:
        await wait_for_audit(database, "device_code_rejected", COMMAND_CLIENT)


async def test_a_device_code_of_another_client_is_refused(
    command: App, client: AsyncClient, as_ada: Headers, app: FastAPI
) -> None:
    other = await register_app(client, as_ada, app)
    started = await start(client)
    await decide(command, started, "allow")

    mixed_up = await poll(client, started["device_code"], other.client_id)

    assert_refused(mixed_up, "invalid_grant")
    assert (await poll(client, started["device_code"])).status_code == 200
    await other.browser.aclose()


async def test_another_clients_scopes_are_limited(
    client: AsyncClient, as_ada: Headers, app: FastAPI
) -> None:
    other = await register_app(client, as_ada, app, scope="predict")

    refused = await client.post(
        "/device_authorization", data={"client_id": other.client_id, "scope": "admin"}
    )
    started = await start(client, other.client_id, scope="openid predict")
    await decide(other, started, "allow")
    tokens = (await poll(client, started["device_code"], other.client_id)).json()

    assert_refused(refused, "invalid_scope")
    assert tokens["scope"] == "openid predict"
    assert "id_token" in tokens
    await other.browser.aclose()


@pytest.mark.parametrize(
    ("form", "error", "status"),
    [
        ({"scope": "openid"}, "invalid_client", 401),
        ({"client_id": "unknown"}, "invalid_client", 401),
        ({"client_id": "é"}, "invalid_client", 401),
        ({"client_id": COMMAND_CLIENT, "client_secret": "x"}, "invalid_client", 401),
        ({"client_id": COMMAND_CLIENT, "scope": "unknown"}, "invalid_scope", 400),
    ],
)
async def test_a_device_needs_a_valid_client(
    command: App, client: AsyncClient, form: dict[str, str], error: str, status: int
) -> None:
    assert_refused(await client.post("/device_authorization", data=form), error, status)


async def test_a_machine_client_cannot_start_a_device(client: AsyncClient, as_ada: Headers) -> None:
    machine = (await client.post("/clients", json={"name": "job"}, headers=as_ada)).json()

    answer = await client.post(
        "/device_authorization",
        data={"client_id": machine["client_id"], "client_secret": machine["client_secret"]},
    )

    assert_refused(answer, "unauthorized_client")


@pytest.mark.costly
async def test_one_address_cannot_start_any_number(
    command: App, client: AsyncClient, app: FastAPI
) -> None:
    for _ in range(60):
        await start(client)

    refused = await client.post("/device_authorization", data={"client_id": COMMAND_CLIENT})
    async with browse(app, address="10.0.0.2") as elsewhere:
        await start(elsewhere)

    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0


async def test_codes_cannot_be_guessed_in_any_number(
    command: App, client: AsyncClient, ada: dict[str, str], app: FastAPI, database: Database
) -> None:
    started = await start(client)
    entering = await open_device_page(command, started["verification_uri"])

    answers = [await command.send(entering, user_code="BBBB-BBBB") for _ in range(10)]
    locked = await command.send(entering, user_code=started["user_code"])

    assert {each.status_code for each in answers} == {400}
    assert locked.status_code == 429
    assert int(locked.headers["Retry-After"]) > 0
    await wait_for_audit(database, "device_rejected")
    assert_refused(await poll(client, started["device_code"]), "authorization_pending")


@pytest.mark.parametrize("path", ["/device", "/device/confirm"])
async def test_a_form_without_its_csrf_token_is_refused(
    command: App, client: AsyncClient, ada: dict[str, str], path: str
) -> None:
    started = await start(client)
    await open_device_page(command, started["verification_uri"])
    form = {"user_code": started["user_code"], "decision": "allow", "csrf": "x"}

    answer = await command.browser.post(path, data=form)

    assert answer.status_code == 403
    assert_safe_page(answer)
    assert_refused(await poll(client, started["device_code"]), "authorization_pending")


async def test_nobody_decides_without_signing_in(
    command: App, client: AsyncClient, ada: dict[str, str]
) -> None:
    started = await start(client)
    shown = await command.browser.get("/device")
    form = {"csrf": Page(shown).fields["csrf"], "user_code": started["user_code"]}

    for path in ("/device", "/device/confirm"):
        answer = await command.browser.post(path, data=form | {"decision": "allow"})

        assert Page(answer).actions == ["/sign-in"]
    assert_refused(await poll(client, started["device_code"]), "authorization_pending")


@pytest.mark.parametrize("end", ["disabled", "password"])
async def test_an_approval_ends_with_its_persons_sessions(
    command: App, client: AsyncClient, as_ada: Headers, database: Database, end: str
) -> None:
    started = await start(client)
    await decide(command, started, "allow")
    if end == "disabled":
        async with database.transaction() as session:
            await session.execute(update(User).values(disabled_at=datetime.now(UTC)))
    else:
        await client.post(
            "/users/me/password", json={"current": PASSWORD, "new": NEW_PASSWORD}, headers=as_ada
        )

    assert_refused(await poll(client, started["device_code"]), "invalid_grant")


async def test_the_acts_are_audited(
    command: App, client: AsyncClient, ada: dict[str, str], database: Database
) -> None:
    for decision in ("allow", "deny"):
        await decide(command, await start(client), decision)

    await wait_for_audit(database, "device_approved", COMMAND_CLIENT)
    await wait_for_audit(database, "device_denied", COMMAND_CLIENT)


async def test_hostile_codes_are_escaped(command: App, client: AsyncClient) -> None:
    for query in ("user_code=%22%3E%3Cscript%3E", "user_code=%ff", "a=1&" * 50):
        answer = await command.browser.get(f"/device?{query}")

        assert answer.status_code in (200, 400)
        assert "<script" not in answer.text


async def test_codes_are_stored_as_digests(
    command: App, client: AsyncClient, database: Database
) -> None:
    started = await start(client)

    async with database.snapshot() as session:
        stored = str((await session.execute(DeviceCode.__table__.select())).all())
    assert started["device_code"] not in stored
    assert normalise_user_code(started["user_code"]) not in stored
    assert await count(database, DeviceCode) == 1
