"""The pages that links in mails lead to, used like a browser without scripts does."""

import re
from email.message import EmailMessage
from html.parser import HTMLParser

import httpx
import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.auth.users.service import ensure_user
from tests.integration.auth.conftest import (
    PASSWORD,
    LogIn,
    OpenApp,
    bearer,
    browse,
    next_mail,
)

pytestmark = pytest.mark.any_database

ADA = "ada@example.com"
NEW_PASSWORD = "another long password"


class Page(HTMLParser):
    """A page's form: where it goes, and its fields with their values."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.labels: set[str] = set()
        self.ids: set[str] = set()
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            assert found["method"] == "post"
            self.action = found["action"]
        if tag == "input" and "name" in found:
            self.fields[found["name"]] = found.get("value", "")
        if tag == "input" and found["type"] != "hidden":
            self.ids.add(found["id"])
        if tag == "label":
            self.labels.add(found["for"])


def link_in(message: EmailMessage) -> str:
    body = message.get_body(("html",))
    assert body is not None
    [link] = re.findall(r'href="([^"]+)"', body.get_content())
    return str(link)


async def send(client: AsyncClient, answer: httpx.Response, **fields: str) -> httpx.Response:
    """Fill in and send the form of a page."""
    shown = Page(answer)
    return await client.post(shown.action, data=shown.fields | fields)


def assert_safe(answer: httpx.Response) -> None:
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert '<html lang="en">' in answer.text
    assert Page(answer).ids == Page(answer).labels
    assert "<script" not in answer.text
    assert "http" not in answer.text.replace("http-equiv", "")


async def test_a_forgotten_password_is_reset_on_the_page(
    app: FastAPI, client: AsyncClient, ada: dict[str, str], log_in: LogIn
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
    assert (await log_in(password=NEW_PASSWORD)).status_code == 200


async def test_an_email_is_confirmed_on_the_page(
    app: FastAPI, open_app: OpenApp, log_in: LogIn
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
    assert (await log_in()).status_code == 200


async def test_an_invitation_is_accepted_on_the_page(
    app: FastAPI, open_app: OpenApp, log_in: LogIn
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
        as_admin = bearer((await log_in("root@x.io")).json()["access_token"])
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
    assert (await log_in()).status_code == 200


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
