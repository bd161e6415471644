"""The pages that links in mails lead to, used like a browser without scripts does."""

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.users.service import ensure_user
from tests.integration.auth.conftest import (
    ADA,
    NEW_PASSWORD,
    PASSWORD,
    OpenApp,
    SignIn,
    bearer,
    browse,
    next_mail,
)
from tests.integration.auth.pages import Page, assert_safe, link_in, send

pytestmark = pytest.mark.any_database


async def test_a_forgotten_password_is_reset_on_the_page(
    app: FastAPI, client: AsyncClient, ada: dict[str, str], sign_in: SignIn
) -> None:
    await client.post("/password-reset", json={"email": ADA})
    link = link_in(await next_mail(app, to=ADA, subject="Reset your password"))

    opened = await client.get(link)
    again = await client.get(link)  # as mail scanners do
    too_short = await send(client, again, password="short")
    done = await send(client, too_short, password=NEW_PASSWORD)
    repeated = await send(client, opened, password=NEW_PASSWORD)

    for answer in (opened, too_short, done, repeated):
        assert_safe(answer)
    assert [each.status_code for each in (opened, too_short, done, repeated)] == [
        200,
        422,
        200,
        400,
    ]
    assert 'role="alert"' in too_short.text
    assert (await sign_in(password=NEW_PASSWORD)).status_code == 200


async def test_an_email_is_confirmed_on_the_page(
    app: FastAPI, open_app: OpenApp, sign_in: SignIn
) -> None:
    async with open_app(registration="verify") as verifying, browse(verifying) as client:
        await client.post("/register", json={"email": ADA, "password": PASSWORD})
        link = link_in(await next_mail(verifying, to=ADA, subject="Confirm"))
        opened = await client.get(link)
        done = await send(client, opened)
        repeated = await send(client, opened)

    for answer in (opened, done, repeated):
        assert_safe(answer)
    assert [opened.status_code, done.status_code, repeated.status_code] == [200, 200, 400]
    assert (await sign_in()).status_code == 200


async def test_the_last_page_leads_to_the_console_and_a_used_link_does_not_work(
    app: FastAPI, open_app: OpenApp
) -> None:
    console = {"registration": "verify", "console_public_url": "https://console.test"}
    async with open_app(**console) as verifying, browse(verifying) as client:
        await client.post("/register", json={"email": ADA, "password": PASSWORD})
        opened = await client.get(link_in(await next_mail(verifying, to=ADA, subject="Confirm")))
        done = await send(client, opened)
        repeated = await send(client, opened)

    assert Page(done).links == ["https://console.test/sign-in"]
    assert "<h1>This link does not work</h1>" in repeated.text


async def test_an_invitation_is_accepted_on_the_page(
    app: FastAPI, open_app: OpenApp, sign_in: SignIn
) -> None:
    async with open_app(registration="invite") as closed, browse(closed) as client:
        async with closed.state.database.transaction() as session:
            await ensure_user(
                session,
                hasher=closed.state.hasher,
                email="root@x.io",
                password=PASSWORD,
                admin=True,
            )
        as_admin = bearer((await sign_in("root@x.io")).json()["access_token"])
        await client.post("/users/invite", json={"email": ADA}, headers=as_admin)
        link = link_in(await next_mail(closed, to=ADA, subject="invited"))
        opened = await client.get(link)
        too_short = await send(client, opened, password="short")
        done = await send(client, too_short, password=PASSWORD)
        repeated = await client.get(link)

    for answer in (opened, too_short, done, repeated):
        assert_safe(answer)
    assert f'readonly value="{ADA}"' in opened.text
    assert [each.status_code for each in (opened, too_short, done, repeated)] == [
        200,
        422,
        200,
        400,
    ]
    assert (await sign_in()).status_code == 200


@pytest.mark.parametrize("path", ["/password-reset", "/verify-email", "/register"])
async def test_a_hostile_token_is_escaped_and_refused(client: AsyncClient, path: str) -> None:
    hostile = '"><script>alert(1)</script>'

    opened = await client.get(path, params={"token": hostile})
    sent = await client.post(f"{path}/page", data={"token": hostile, "password": NEW_PASSWORD})

    assert_safe(opened)
    assert_safe(sent)
    assert sent.status_code == 400


@pytest.mark.parametrize("body", [b"", b"\xff", b"token=%ff", b"&" * 100, b"token", b"{}"])
async def test_a_malformed_form_is_refused(client: AsyncClient, body: bytes) -> None:
    for path in ("/password-reset", "/verify-email", "/register"):
        answer = await client.post(f"{path}/page", content=body)

        assert answer.status_code in (400, 422)
        assert_safe(answer)
