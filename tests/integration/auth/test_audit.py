"""The audit log: what is recorded."""

from collections import Counter
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.audit.service import OPERATOR
from services.auth.clients.credentials import ensure_service_client
from services.auth.users.service import ensure_user, set_disabled
from services.common.identity.api_keys import new_api_key
from tests.integration.auth.conftest import PASSWORD, Headers, OpenApp, SignIn, browse, read_audit

pytestmark = pytest.mark.any_database


async def actions(client: AsyncClient, headers: Headers, **wanted: Any) -> list[str]:
    """Return the actions of the entries with these fields, oldest first."""
    entries = reversed((await read_audit(client, headers, limit=1000))["entries"])
    return [
        entry["action"]
        for entry in entries
        if all(entry[name] == value for name, value in wanted.items())
    ]


class TestActs:
    async def test_registration_and_sign_in_are_recorded_with_who_and_from_where(
        self, app: FastAPI, client: AsyncClient, as_admin: Headers
    ) -> None:
        form = {"grant_type": "password", "username": "bob@example.com", "password": PASSWORD}
        async with browse(app, address="203.0.113.9") as there:
            bob = (
                await there.post(
                    "/register", json={"email": form["username"], "password": PASSWORD}
                )
            ).json()["id"]
            await there.post("/token", data=form)

        there_only = await actions(client, as_admin, address="203.0.113.9", actor=bob, target=bob)

        assert there_only == ["user_registered", "login_succeeded"]

    async def test_failed_sign_ins_name_the_user_but_no_address_of_strangers(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn, as_admin: Headers
    ) -> None:
        await sign_in(password="wrong password")
        await sign_in("stranger@example.com", "wrong password")

        entries = (await read_audit(client, as_admin))["entries"]

        targets = [each["target"] for each in entries if each["action"] == "login_failed"]
        assert targets[1] == ada["id"]
        assert targets[0].startswith("unknown:")
        assert "stranger" not in str(entries)

    async def test_a_flood_of_failed_sign_ins_is_bounded(
        self, ada: dict[str, str], app: FastAPI, client: AsyncClient, as_admin: Headers
    ) -> None:
        for _ in range(1500):
            app.state.failures.note("login_failed", address="203.0.113.1")

        found = Counter(await actions(client, as_admin))

        assert found["login_failed"] <= 1001
        assert found["failures_omitted"] >= 1

    @pytest.mark.costly
    async def test_a_lock_is_recorded_once(
        self, ada: dict[str, str], app: FastAPI, open_app: OpenApp, as_admin: Headers
    ) -> None:
        async with open_app(login_attempts=2) as strict, browse(strict) as client:
            form = {"grant_type": "password", "username": ada["email"], "password": "wrong"}
            answers = [(await client.post("/token", data=form)).status_code for _ in range(6)]
            found = await actions(client, as_admin, target=ada["id"], actor=None)

        assert answers == [400, 400, 429, 429, 429, 429]
        assert found == ["login_failed", "login_failed", "login_locked"]

    async def test_reuse_of_a_refresh_token_and_sign_out_are_recorded(
        self, client: AsyncClient, ada: dict[str, str], sign_in: SignIn, as_admin: Headers
    ) -> None:
        first, second = [(await sign_in()).json()["refresh_token"] for _ in range(2)]
        refresh = {"grant_type": "refresh_token", "refresh_token": first}
        for _ in range(2):
            await client.post("/token", data=refresh)
        await client.post("/revoke", data={"token": second})
        await client.post("/revoke", data={"token": second})

        found = await actions(client, as_admin, target=ada["id"])

        assert found[-2:] == ["refresh_token_reused", "login_ended"]

    async def test_api_keys_are_recorded_but_never_their_text(
        self, client: AsyncClient, ada: dict[str, str], as_ada: Headers, as_admin: Headers
    ) -> None:
        old = (await client.post("/api-keys", json={"name": "x"}, headers=as_ada)).json()
        new = (await client.post(f"/api-keys/{old['id']}/rotate", headers=as_ada)).json()
        of_another = await client.delete(f"/api-keys/{new['id']}", headers=as_admin)
        await client.delete(f"/api-keys/{new['id']}", headers=as_ada)

        found = await actions(client, as_admin, actor=ada["id"])

        assert of_another.status_code == 404
        assert found[-4:] == [
            "api_key_created",
            "api_key_rotated",
            "api_key_created",
            "api_key_deleted",
        ]
        assert await actions(client, as_admin, target=old["id"]) == found[-4:-2]
        of_new = await actions(client, as_admin, target=new["id"])
        assert sorted(of_new) == ["access_denied", "api_key_created", "api_key_deleted"]
        everything = str(await read_audit(client, as_admin, limit=1000))
        assert old["key"] not in everything
        assert new["key"] not in everything

    async def test_ids_that_are_too_long_or_not_ascii_are_cut(
        self, client: AsyncClient, as_admin: Headers
    ) -> None:
        for kind in ("clients", "api-keys"):
            assert (
                await client.delete(f"/{kind}/é{'x' * 200}", headers=as_admin)
            ).status_code == 404

        found = await actions(client, as_admin, target="?" + "x" * 127)

        assert found == ["access_denied"] * 2

    async def test_a_revoked_access_token_is_recorded_once(
        self, client: AsyncClient, ada: dict[str, str], as_ada: Headers, as_admin: Headers
    ) -> None:
        token = as_ada["Authorization"].removeprefix("Bearer ")
        for _ in range(2):
            await client.post("/revoke", data={"token": token})

        found = await actions(client, as_admin, actor=ada["id"])

        assert found.count("access_token_revoked") == 1

    async def test_clients_are_recorded(
        self, client: AsyncClient, ada: dict[str, str], as_ada: Headers, as_admin: Headers
    ) -> None:
        created = await client.post("/clients", json={"name": "job"}, headers=as_ada)
        client_id = created.json()["client_id"]
        secret = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": "x"}
        await client.post("/token", data=secret)
        of_another = await client.delete(f"/clients/{client_id}", headers=as_admin)
        await client.delete(f"/clients/{client_id}", headers=as_ada)

        found = await actions(client, as_admin, target=client_id)

        assert of_another.status_code == 404
        assert sorted(found) == [
            "access_denied",
            "client_created",
            "client_deleted",
            "client_rejected",
        ]

    async def test_what_operators_do_is_recorded_if_it_changes_something(
        self, app: FastAPI, client: AsyncClient, ada: dict[str, str], as_admin: Headers
    ) -> None:
        for disabled in (True, True, False):
            async with app.state.database.transaction() as session:
                await set_disabled(session, email=ada["email"], disabled=disabled)
        for secret in ("one", "one", "two"):
            async with app.state.database.transaction() as session:
                await ensure_service_client(
                    session, client_id="inference", client_secret=secret, scope="billing:write"
                )
        for password in ("another password", "another password"):
            async with app.state.database.transaction() as session:
                await ensure_user(
                    session,
                    hasher=app.state.hasher,
                    email=ada["email"],
                    password=password,
                    admin=False,
                )

        found = await actions(client, as_admin, actor=OPERATOR)

        assert found == [
            "user_created",  # the administrator
            "user_disabled",
            "user_enabled",
            "client_created",
            "client_updated",
            "password_changed",
        ]

    async def test_no_entry_contains_a_secret(
        self, client: AsyncClient, ada: dict[str, str], as_ada: Headers, as_admin: Headers
    ) -> None:
        created = await client.post("/clients", json={"name": "job"}, headers=as_ada)
        tokens = await client.post(
            "/token", data={"grant_type": "client_credentials", **_credentials(created)}
        )

        shown = str(await read_audit(client, as_admin))

        secrets = [PASSWORD, created.json()["client_secret"], tokens.json()["access_token"]]
        assert not any(secret in shown for secret in secrets)


def _credentials(created: httpx.Response) -> dict[str, str]:
    return {name: created.json()[name] for name in ("client_id", "client_secret")}


class TestRejectedCredentials:
    """Of tokens and clients that show nothing about who sent them, only the address is recorded."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": "Bearer nonsense"},
            {"Authorization": "Basic nonsense"},
            {"X-API-Key": "tg_live_nonsense"},
            {"X-API-Key": new_api_key("live")},
        ],
    )
    async def test_a_malformed_or_foreign_token_is_recorded(
        self, client: AsyncClient, as_admin: Headers, headers: Headers
    ) -> None:
        answer = await client.get("/userinfo", headers=headers)

        assert answer.status_code == 401
        [entry] = [
            each
            for each in (await read_audit(client, as_admin))["entries"]
            if each["action"] == "token_rejected"
        ]
        assert (entry["actor"], entry["target"], entry["address"]) == (None, None, "127.0.0.1")

    async def test_a_revoked_token_is_recorded(
        self, client: AsyncClient, as_ada: Headers, as_admin: Headers
    ) -> None:
        token = as_ada["Authorization"].removeprefix("Bearer ")
        await client.post("/revoke", data={"token": token})

        answer = await client.get("/userinfo", headers=as_ada)

        assert answer.status_code == 401
        assert (await actions(client, as_admin)).count("token_rejected") == 1

    async def test_unknown_refresh_tokens_and_malformed_clients_are_recorded(
        self, app: FastAPI, client: AsyncClient, as_admin: Headers
    ) -> None:
        form = {"grant_type": "refresh_token", "refresh_token": "nonsense"}
        unknown = await client.post("/token", data=form)
        malformed = await client.post(
            "/token", data=form, headers={"Authorization": "Basic nonsense"}
        )

        assert (unknown.status_code, malformed.status_code) == (400, 401)
        found = await actions(client, as_admin)
        assert found.count("refresh_token_rejected") == 1
        assert found.count("client_rejected") == 1

    async def test_what_other_services_rejected_is_recorded(
        self, client: AsyncClient, as_admin: Headers, as_ada: Headers, inference: tuple[str, str]
    ) -> None:
        granted = await client.post(
            "/token", data={"grant_type": "client_credentials"}, auth=inference
        )
        service = {"Authorization": f"Bearer {granted.json()['access_token']}"}
        rejection = {"time": "2026-01-31T12:00:00Z", "address": "203.0.113.9"}
        report = {"rejections": [rejection], "omitted": 7}

        forbidden = await client.post("/rejections", json=report, headers=as_ada)
        answer = await client.post("/rejections", json=report, headers=service)

        assert (forbidden.status_code, answer.status_code) == (403, 204)
        entries = (await read_audit(client, as_admin))["entries"]
        [entry] = [each for each in entries if each["action"] == "token_rejected"]
        assert entry["time"].startswith("2026-01-31T12:00:00")
        assert (entry["target"], entry["address"]) == (inference[0], "203.0.113.9")
        [omitted] = [each for each in entries if each["action"] == "failures_omitted"]
        assert omitted["target"] == "7"

    async def test_a_request_without_credentials_is_no_attempt(
        self, client: AsyncClient, as_admin: Headers
    ) -> None:
        assert (await client.get("/userinfo")).status_code == 401

        assert "token_rejected" not in await actions(client, as_admin)
