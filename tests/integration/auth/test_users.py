"""Registration and the calling user."""

import asyncio
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from jose import jwt
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.models import User
from services.auth.passwords import MEMORY_KIB
from services.auth.users.service import EmailTaken, create_user, ensure_user
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from services.common.errors import BodyInvalid
from tests.integration.auth.conftest import (
    OWNER_SCOPE,
    PASSWORD,
    Headers,
    OpenApp,
    SignIn,
    browse,
)


async def register(
    client: AsyncClient, *, email: object = "ada@example.com", password: object = PASSWORD
) -> httpx.Response:
    return await client.post("/register", json={"email": email, "password": password})


async def count_users(database: Database) -> int:
    async with database.snapshot() as session:
        return await session.scalar(select(func.count()).select_from(User)) or 0


@pytest.mark.any_database
class TestRegister:
    async def test_a_new_user_can_sign_in(self, client: AsyncClient, sign_in: SignIn) -> None:
        answer = await register(client)

        assert answer.status_code == 201
        assert set(answer.json()) == {"id", "email", "created_at"}
        assert datetime.fromisoformat(answer.json()["created_at"]).utcoffset() is not None
        assert (await sign_in()).status_code == 200

    async def test_the_password_is_stored_as_argon2id_only(
        self, app: FastAPI, open_app: OpenApp, database: Database
    ) -> None:
        async with open_app(password_memory_kib=MEMORY_KIB) as costly, browse(costly) as client:
            await register(client)

        async with database.snapshot() as session:
            stored = (await session.scalars(select(User.password_hash))).one()
        assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")

    @pytest.mark.parametrize(
        "variant",
        [
            "ADA@example.com",
            "  ada@EXAMPLE.com\n",
            "ａｄａ@example.com",
            "ada@ｅxample.com",
            "ada@example。com",
            "ada@example．com",
        ],
    )
    async def test_any_spelling_of_a_taken_email_is_taken(
        self, client: AsyncClient, ada: dict[str, str], database: Database, variant: str
    ) -> None:
        answer = await register(client, email=variant)

        assert answer.status_code == 409
        assert answer.json()["type"] == "urn:tollgate:problem:email_taken"
        assert await count_users(database) == 1

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("é@x.io", "e@x.io"),
            ("straße@x.io", "strasse@x.io"),
            ("ada@strasse.de", "ada@straße.de"),
        ],
    )
    async def test_different_letters_make_different_users_on_every_database(
        self, client: AsyncClient, sign_in: SignIn, one: str, other: str
    ) -> None:
        answers = [await register(client, email=email) for email in (one, other)]
        owners = [
            jwt.get_unverified_claims((await sign_in(email)).json()["access_token"])["sub"]
            for email in (one, other)
        ]

        assert [answer.status_code for answer in answers] == [201, 201]
        assert owners == [answer.json()["id"] for answer in answers]

    async def test_all_spellings_of_a_domain_are_one_user(
        self, client: AsyncClient, sign_in: SignIn
    ) -> None:
        spellings = ["ada@bücher.example", "ada@XN--BCHER-KVA.example", "ADA@BÜCHER。example"]

        answers = [await register(client, email=email) for email in spellings]

        assert [answer.status_code for answer in answers] == [201, 409, 409]
        assert answers[0].json()["email"] == "ada@bücher.example"
        assert [(await sign_in(email)).status_code for email in spellings] == [200] * 3

    async def test_fifty_concurrent_registrations_create_one_user(
        self, client: AsyncClient, database: Database
    ) -> None:
        spellings = ["ada@example.com", "Ada@Example.Com"] * 25

        answers = await asyncio.gather(*(register(client, email=email) for email in spellings))

        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 49
        assert await count_users(database) == 1

    @pytest.mark.parametrize(
        "email",
        [
            "",
            "ada",
            "@x.io",
            "ada@",
            "a@b@c",
            "a b@x.io",
            "a\u200bb@x.io",
            "a@x..io",
            "a@.io",
            "a@x.io.",
            "a@x.io。",
            "a@x_y.io",
            "a@-x.io",
            "a@xn--zzzzz99999.io",
            "a@" + "x" * 64 + ".io",
            "a" * 65 + "@x.io",
            "a@" + "x" * 260,
            "a\0@x.io",
            7,
            None,
            ["a@x.io"],
            True,
        ],
    )
    async def test_an_invalid_email_is_rejected(
        self, client: AsyncClient, database: Database, email: object
    ) -> None:
        answer = await register(client, email=email)

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["body", "email"]
        assert await count_users(database) == 0

    @pytest.mark.parametrize(
        "password",
        [
            "8 chars!",
            "x" * 64,
            "x" * 1023 + "y",
            "🔑" * 8,
            "🔑" * 1024,
            "only lower case",
            "  space  ",
        ],
    )
    async def test_any_password_of_8_to_1024_characters_is_accepted_unchanged(
        self, client: AsyncClient, sign_in: SignIn, password: str
    ) -> None:
        assert (await register(client, password=password)).status_code == 201

        assert (await sign_in(password=password)).status_code == 200
        assert (await sign_in(password=password[:-1])).status_code == 400
        assert (await sign_in(password=password.strip() + "x")).status_code == 400

    @pytest.mark.parametrize(
        "password",
        ["7 chars", "x" * 1025, "x" * 4097, "with\0NUL", "Password1", "12345678", 12345678],
    )
    async def test_a_bad_password_is_rejected_and_not_repeated(
        self, client: AsyncClient, password: object
    ) -> None:
        answer = await register(client, password=password)

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["body", "password"]
        assert str(password) not in answer.text

    async def test_missing_and_unknown_fields_are_all_named(self, client: AsyncClient) -> None:
        answer = await client.post("/register", json={"password": PASSWORD, "is_admin": True})

        assert answer.status_code == 422
        locations = {tuple(error["loc"]) for error in answer.json()["errors"]}
        assert locations == {("body", "email"), ("body", "is_admin")}
        assert PASSWORD not in answer.text

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"email": "\\ud800"}', b"\xff", b"NaN"])
    async def test_a_body_of_the_wrong_json_type_is_rejected(
        self, client: AsyncClient, body: bytes
    ) -> None:
        answer = await client.post(
            "/register", content=body, headers={"Content-Type": "application/json"}
        )

        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"

    async def test_registration_can_be_closed(
        self, app: FastAPI, open_app: OpenApp, database: Database
    ) -> None:
        async with open_app(registration="invite") as closed, browse(closed) as client:
            answer = await register(client)

        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:tollgate:problem:invitation_needed"
        assert await count_users(database) == 0

    @pytest.mark.costly
    async def test_a_full_password_queue_gets_503_with_retry_after(
        self, app: FastAPI, open_app: OpenApp
    ) -> None:
        async with (
            open_app(
                password_threads=1, password_queue=0, password_memory_kib=MEMORY_KIB
            ) as narrow,
            browse(narrow) as client,
        ):
            emails = [f"user{n}@example.com" for n in range(8)]
            answers = await asyncio.gather(*(register(client, email=email) for email in emails))
            later = await register(client, email="later@example.com")

        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(refused) >= 1
        assert all(answer.headers["Retry-After"] == "1" for answer in refused)
        assert later.status_code == 201


@pytest.mark.any_database
class TestOwnUser:
    async def test_it_is_read_with_a_token(
        self, client: AsyncClient, ada: dict[str, str], as_ada: Headers
    ) -> None:
        answer = await client.get("/users/me", headers=as_ada)

        assert answer.status_code == 200
        assert answer.json() == ada

    async def test_userinfo_follows_openid_connect(
        self, client: AsyncClient, ada: dict[str, str], as_ada: Headers
    ) -> None:
        answer = await client.get("/userinfo", headers=as_ada)

        assert answer.json() == {"sub": ada["id"], "email": ada["email"], "email_verified": False}

    @pytest.mark.parametrize("path", ["/users/me", "/userinfo"])
    async def test_a_token_is_required(self, client: AsyncClient, path: str) -> None:
        answer = await client.get(path)

        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("path", ["/users/me", "/userinfo"])
    async def test_a_disabled_user_is_rejected_immediately(
        self, client: AsyncClient, as_ada: Headers, database: Database, path: str
    ) -> None:
        async with database.transaction() as session:
            await session.execute(update(User).values(disabled_at=datetime.now(UTC)))

        answer = await client.get(path, headers=as_ada)

        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


class TestOperatorsUsers:
    async def test_ensuring_twice_changes_nothing(self, app: FastAPI, database: Database) -> None:
        seen = []
        for _ in range(2):
            async with database.transaction() as session:
                user = await ensure_user(
                    session,
                    hasher=app.state.hasher,
                    email="Root@example.com",
                    password=PASSWORD,
                    admin=True,
                )
                seen.append((user.id, user.email, user.password_hash, user.is_admin))

        assert seen[0] == seen[1]
        assert await count_users(database) == 1

    async def test_ensuring_sets_password_and_role_and_revokes_older_logins(
        self,
        app: FastAPI,
        client: AsyncClient,
        ada: dict[str, str],
        database: Database,
        sign_in: SignIn,
    ) -> None:
        refresh_token = (await sign_in()).json()["refresh_token"]
        async with database.transaction() as session:
            await ensure_user(
                session,
                hasher=app.state.hasher,
                email=ada["email"],
                password="another password",
                admin=True,
            )

        answer = await sign_in(password="another password")

        assert answer.json()["scope"] == f"{OWNER_SCOPE} admin"
        assert (await sign_in()).status_code == 400
        refresh = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        assert (await client.post("/token", data=refresh)).status_code == 400

    async def test_ensuring_in_many_processes_at_once_creates_one_user(
        self, app: FastAPI, database: Database
    ) -> None:
        async def ensure(session: AsyncSession) -> str:
            user = await ensure_user(
                session,
                hasher=app.state.hasher,
                email="root@example.com",
                password=PASSWORD,
                admin=True,
            )
            return user.id

        ids = await asyncio.gather(*(in_transaction(database, ensure) for _ in range(8)))

        assert len(set(ids)) == 1

    async def test_creating_explains_invalid_input(
        self, app: FastAPI, ada: dict[str, str], database: Database
    ) -> None:
        async def create(email: str, password: str) -> None:
            async with database.transaction() as session:
                await create_user(session, hasher=app.state.hasher, email=email, password=password)

        with pytest.raises(EmailTaken):
            await create(ada["email"], PASSWORD)
        with pytest.raises(BodyInvalid):
            await create("bob@example.com", "short")
        assert await count_users(database) == 1
