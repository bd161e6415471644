"""What users do with their own data, and how administrators invite them."""

import asyncio
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.api_keys import repository as api_key_repository
from services.auth.clients import repository as client_repository
from services.auth.models import (
    ApiKey,
    Base,
    Client,
    KnownAddress,
    RecoveryCode,
    RefreshFamily,
    User,
)
from services.common.db.database import Database
from tests.integration.auth.conftest import (
    ADA,
    ADMIN,
    NEW_PASSWORD,
    PASSWORD,
    Headers,
    OpenApp,
    SignIn,
    actions_on,
    bearer,
    browse,
    count,
    next_mail,
    revoked,
    token_in,
)


async def machine(client: AsyncClient, headers: Headers) -> Headers:
    """Return the headers of a machine client of the user."""
    created = (await client.post("/clients", json={"name": "job"}, headers=headers)).json()
    form = {name: created[name] for name in ("client_id", "client_secret")}
    answer = await client.post("/token", data={"grant_type": "client_credentials", **form})
    return bearer(answer.json()["access_token"])


class TestProfile:
    @pytest.mark.any_database
    async def test_the_name_can_be_set_and_removed(
        self, client: AsyncClient, as_ada: Headers
    ) -> None:
        for name in ("Ada Lovelace", None):
            answer = await client.patch("/users/me", json={"name": name}, headers=as_ada)

            assert (answer.status_code, answer.json().get("name")) == (200, name)
        assert "name" not in (await client.get("/users/me", headers=as_ada)).json()

    async def test_a_new_email_signs_in_and_the_old_one_is_notified(
        self, app: FastAPI, client: AsyncClient, as_ada: Headers, sign_in: SignIn
    ) -> None:
        answer = await client.patch("/users/me", json={"email": "A@New.example"}, headers=as_ada)

        assert answer.json()["email"] == "a@new.example"
        assert (await sign_in("a@new.example")).status_code == 200
        assert (await sign_in(ADA)).status_code == 400
        await next_mail(app, to=ADA, subject="e-mail address was changed")

    async def test_a_taken_or_malformed_email_is_rejected(
        self, client: AsyncClient, as_ada: Headers
    ) -> None:
        await client.post("/register", json={"email": "bob@example.com", "password": PASSWORD})

        answers = [
            await client.patch("/users/me", json={"email": email}, headers=as_ada)
            for email in ("BOB@example.com", "nonsense", "", None)
        ]

        assert [answer.status_code for answer in answers] == [409, 422, 422, 422]

    @pytest.mark.costly
    @pytest.mark.any_database
    async def test_where_mail_verifies_a_new_email_counts_once_verified(
        self, app: FastAPI, as_ada: Headers, open_app: OpenApp, sign_in: SignIn
    ) -> None:
        async with open_app(registration="verify") as verifying, browse(verifying) as client:
            answer = await client.patch("/users/me", json={"email": "a@new.io"}, headers=as_ada)
            before = (await sign_in("a@new.io")).status_code
            mail = await next_mail(verifying, to="a@new.io", subject="Confirm")
            used = [
                (await client.post("/verify-email", json={"token": token_in(mail)})).status_code
                for _ in range(2)
            ]
            shown = (await client.get("/users/me", headers=as_ada)).json()

        assert answer.json()["email"] == ADA
        assert (before, used) == (400, [204, 400])
        assert (shown["email"], "email_verified_at" in shown) == ("a@new.io", True)
        assert (await sign_in("a@new.io")).status_code == 200

    async def test_sending_the_same_email_again_requests_a_verification(
        self, app: FastAPI, client: AsyncClient, as_ada: Headers
    ) -> None:
        await client.patch("/users/me", json={"email": ADA}, headers=as_ada)
        mail = await next_mail(app, to=ADA, subject="Confirm")

        answer = await client.post("/verify-email", json={"token": token_in(mail)})

        assert answer.status_code == 204
        assert (await client.get("/userinfo", headers=as_ada)).json()["email_verified"] is True

    async def test_the_export_has_everything_but_secrets(
        self, client: AsyncClient, ada: dict[str, str], as_ada: Headers, as_admin: Headers
    ) -> None:
        await machine(client, as_ada)
        key = (await client.post("/api-keys", json={"name": "site"}, headers=as_ada)).json()
        await client.get("/audit", headers=as_admin)  # chains what was recorded

        answer = await client.get("/users/me/export", headers=as_ada)

        document = answer.json()
        assert set(document) == {
            "user",
            "organisations",
            "clients",
            "api_keys",
            "log_ins",
            "consents",
            "provider_identities",
            "browser_sessions",
            "notes",
            "audit",
        }
        assert document["user"]["email"] == ADA
        assert [each["name"] for each in document["clients"]] == ["job"]
        assert [each["prefix"] for each in document["api_keys"]] == [key["prefix"]]
        assert len(document["log_ins"]) == 1
        assert {each["action"] for each in document["audit"]} >= {
            "user_registered",
            "login_succeeded",
            "client_created",
            "api_key_created",
        }
        assert key["key"] not in answer.text
        assert "argon2" not in answer.text
        assert "secret" not in answer.text

    async def test_a_deleted_user_is_gone_with_all_credentials(
        self,
        client: AsyncClient,
        ada: dict[str, str],
        as_ada: Headers,
        sign_in: SignIn,
        database: Database,
        as_admin: Headers,
        inference: tuple[str, str],
    ) -> None:
        as_machine = await machine(client, as_ada)
        key = (await client.post("/api-keys", json={"name": "site"}, headers=as_ada)).json()
        await client.post("/users/me/totp", headers=as_ada)

        answer = await client.delete("/users/me", headers=as_ada)

        assert answer.status_code == 204
        for headers in (as_ada, as_machine):
            assert (await client.get("/users/me", headers=headers)).status_code == 401
        assert (await sign_in()).status_code == 400
        form = {"token": key["key"]}
        found = await client.post("/introspect", data=form, auth=inference)
        assert found.json() == {"active": False}
        assert await revoked(database) == [("user", ada["id"]), ("account", ada["id"])]
        assert [await count(database, each) for each in (ApiKey, RecoveryCode)] == [0, 0]
        async with database.snapshot() as session:
            assert (await session.scalars(select(Client.client_id))).all() == [inference[0]]
        assert [await count(database, each) for each in (RefreshFamily, KnownAddress)] == [1, 1]
        assert "user_deleted" in await actions_on(client, as_admin, ada["id"])
        again = await client.post("/register", json={"email": ADA, "password": PASSWORD})
        assert again.status_code == 201
        assert again.json()["id"] != ada["id"]

    @pytest.mark.parametrize(
        ("repository", "look_up", "path", "table"),
        [
            (api_key_repository, "list_keys", "/api-keys", ApiKey),
            (client_repository, "list_clients", "/clients", Client),
        ],
    )
    async def test_credentials_that_are_created_while_the_user_is_deleted_are_not_stored(
        self,
        client: AsyncClient,
        as_ada: Headers,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        repository: ModuleType,
        look_up: str,
        path: str,
        table: type[Base],
    ) -> None:
        async def delete_user(session: AsyncSession, **_: str) -> list[object]:
            await session.execute(delete(User))
            return []

        monkeypatch.setattr(repository, look_up, delete_user)

        answer = await client.post(path, json={"name": "late"}, headers=as_ada)

        assert answer.status_code == 401
        assert await count(database, table) == 0

    async def test_of_concurrent_deletions_one_succeeds(
        self, client: AsyncClient, ada: dict[str, str], as_ada: Headers, as_admin: Headers
    ) -> None:
        answers = await asyncio.gather(
            *(client.delete("/users/me", headers=as_ada) for _ in range(4))
        )

        assert sorted(answer.status_code for answer in answers) == [204, 401, 401, 401]
        found = await actions_on(client, as_admin, ada["id"])
        assert found.count("user_deleted") == 1

    async def test_the_last_administrator_cannot_leave(
        self, client: AsyncClient, as_admin: Headers
    ) -> None:
        answer = await client.delete("/users/me", headers=as_admin)

        assert answer.status_code == 409
        assert answer.json()["type"] == "urn:tollgate:problem:last_administrator"

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PATCH", "", {"name": "Eve"}),
            ("DELETE", "", None),
            ("GET", "/export", None),
            ("POST", "/password", {"current": PASSWORD, "new": NEW_PASSWORD}),
            ("POST", "/totp", None),
            ("POST", "/totp/confirm", {"code": "123456"}),
            ("DELETE", "/totp", None),
        ],
    )
    @pytest.mark.any_database
    async def test_machine_clients_and_strangers_are_refused(
        self, client: AsyncClient, as_ada: Headers, method: str, path: str, body: Any
    ) -> None:
        as_machine = await machine(client, as_ada)

        anonymous = await client.request(method, f"/users/me{path}", json=body)
        answer = await client.request(method, f"/users/me{path}", json=body, headers=as_machine)

        assert anonymous.status_code == 401
        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:tollgate:problem:login_needed"


class TestAdministrators:
    @pytest.mark.costly
    @pytest.mark.any_database
    async def test_an_invitation_registers_its_address_only_and_once(
        self, app: FastAPI, as_admin: Headers, open_app: OpenApp, sign_in: SignIn
    ) -> None:
        async with open_app(registration="invite") as closed, browse(closed) as client:
            invited = await client.post("/users/invite", json={"email": ADA}, headers=as_admin)
            token = token_in(await next_mail(closed, to=ADA, subject="invited"))
            answers = [
                await client.post("/register", json={"email": email, "password": PASSWORD, **more})
                for email, more in (
                    ("eve@example.com", {"invitation": token}),
                    (ADA, {}),
                    (ADA, {"invitation": "x" * 43}),
                    (ADA, {"invitation": token}),
                    ("ada2@example.com", {"invitation": token}),
                )
            ]

        assert invited.status_code == 202
        assert [answer.status_code for answer in answers] == [400, 403, 400, 201, 400]
        assert (await sign_in()).status_code == 200

    async def test_users_are_listed_in_pages(
        self, client: AsyncClient, ada: dict[str, str], as_admin: Headers
    ) -> None:
        await client.post("/register", json={"email": "bob@example.com", "password": PASSWORD})
        emails: list[str] = []
        cursor: dict[str, str] = {}
        for _ in range(3):
            parameters = {"limit": "1", **cursor}
            page = (await client.get("/users", headers=as_admin, params=parameters)).json()
            emails += [each["email"] for each in page["users"]]
            cursor = {"cursor": page["next_cursor"]}

        assert sorted(emails) == [ADA, "bob@example.com", ADMIN]
        assert page["next_cursor"] is None

    async def test_users_are_listed_by_their_ids(
        self, client: AsyncClient, ada: dict[str, str], as_admin: Headers
    ) -> None:
        unknown = "0198a000-0000-7000-8000-0000000000ad"
        ids = [unknown, ada["id"], ada["id"]]

        page = (await client.get("/users", headers=as_admin, params={"id": ids})).json()

        assert [each["email"] for each in page["users"]] == [ADA]
        assert page["next_cursor"] is None

    @pytest.mark.parametrize("ids", [["x"], ["0198a000-0000-7000-8000-0000000000ad"] * 101])
    async def test_at_most_a_hundred_ids_may_be_asked_for(
        self, client: AsyncClient, as_admin: Headers, ids: list[str]
    ) -> None:
        answer = await client.get("/users", headers=as_admin, params={"id": ids})

        assert answer.status_code == 422

    @pytest.mark.parametrize("cursor", ["zz", "é", "0198a000-0000-7000-8000-0000000000ad "])
    async def test_a_cursor_that_auth_has_not_made_is_refused(
        self, client: AsyncClient, as_admin: Headers, cursor: str
    ) -> None:
        answer = await client.get("/users", params={"cursor": cursor}, headers=as_admin)

        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"loc": ["query", "cursor"], "msg": "Invalid cursor."}]

    async def test_a_disabled_user_is_out_at_once_and_can_be_enabled(
        self,
        client: AsyncClient,
        ada: dict[str, str],
        as_ada: Headers,
        as_admin: Headers,
        sign_in: SignIn,
    ) -> None:
        path = f"/users/{ada['id']}"
        disabled = await client.patch(path, json={"disabled": True}, headers=as_admin)
        while_disabled = (await client.get("/users/me", headers=as_ada)).status_code
        sign_in_then = (await sign_in()).status_code
        enabled = await client.patch(path, json={"disabled": False}, headers=as_admin)

        assert disabled.json()["disabled_at"] is not None
        assert (while_disabled, sign_in_then) == (401, 400)
        assert enabled.json()["disabled_at"] is None
        assert (await sign_in()).status_code == 200
        found = await actions_on(client, as_admin, ada["id"])
        assert {"user_disabled", "user_enabled"} <= set(found)

    async def test_an_unknown_user_is_404_even_with_an_invalid_body(
        self, client: AsyncClient, ada: dict[str, str], as_admin: Headers
    ) -> None:
        answers = [
            await client.patch(f"/users/{user}", json={"disabled": "maybe"}, headers=as_admin)
            for user in ("nobody", ada["id"])
        ]

        assert [answer.status_code for answer in answers] == [404, 422]

    async def test_unknown_users_and_the_last_administrator_are_refused(
        self, client: AsyncClient, as_admin: Headers
    ) -> None:
        me = (await client.get("/users/me", headers=as_admin)).json()["id"]

        answers = [
            await client.patch(f"/users/{user}", json={"disabled": True}, headers=as_admin)
            for user in ("nobody", "%C3%A9", me)
        ]

        assert [answer.status_code for answer in answers] == [404, 404, 409]

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/users", None),
            ("PATCH", "/users/x", {"disabled": True}),
            ("POST", "/users/invite", {"email": "eve@example.com"}),
        ],
    )
    @pytest.mark.any_database
    async def test_other_users_are_refused(
        self, client: AsyncClient, as_ada: Headers, method: str, path: str, body: Any
    ) -> None:
        answers = [
            await client.request(method, path, json=body, headers=headers)
            for headers in ({}, as_ada)
        ]

        assert [answer.status_code for answer in answers] == [401, 403]
