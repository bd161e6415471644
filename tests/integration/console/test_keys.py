"""API keys on the console."""

import asyncio
import re

import pytest
from httpx import AsyncClient

from tests.integration.console.conftest import CONSOLE, World
from tests.integration.console.visits import Shown, follow, sign_up, submit, text_of, visit

KEY = re.compile(r'data-testid="api-key">(tg_(?:live|test)_\w+)<')


@pytest.fixture(autouse=True)
async def signed_up(browser: AsyncClient) -> None:
    await sign_up(browser)


async def test_a_new_key_is_shown_once(browser: AsyncClient) -> None:
    shown = await visit(browser, "/keys")

    created = await follow(browser, await submit(browser, shown, "/keys", name="Checkout"))
    again = await visit(browser, "/keys")

    assert "No API keys yet" in text_of(shown)
    assert KEY.search(created.text)
    assert not KEY.search(again.text)
    assert "Checkout" in text_of(again)
    assert "Never" in text_of(again)


async def test_a_form_that_is_sent_twice_creates_one_key(browser: AsyncClient) -> None:
    shown = await visit(browser, "/keys")

    answers = await asyncio.gather(
        *(submit(browser, shown, "/keys", name="Twice") for _ in range(3))
    )
    page = await visit(browser, "/keys")

    assert [answer.status_code for answer in answers] == [303] * 3
    assert page.text.count('<th scope="row">Twice') == 1


async def test_a_rotated_key_is_replaced_and_the_old_one_ends_later(browser: AsyncClient) -> None:
    shown = await visit(browser, "/keys")
    first = await follow(browser, await submit(browser, shown, "/keys", name="Checkout"))
    action = next(form.action for form in Shown(first).forms if "/rotate" in form.action)

    second = await follow(browser, await submit(browser, first, action, overlap="3600"))

    keys = [KEY.search(page.text) for page in (first, second)]
    assert all(keys)
    assert len({key[1] for key in keys if key}) == 2
    assert second.text.count('<th scope="row">Checkout') == 2
    assert "until" in text_of(second)


async def test_a_deleted_key_is_gone_even_if_the_form_is_sent_again(browser: AsyncClient) -> None:
    shown = await visit(browser, "/keys")
    page = await follow(browser, await submit(browser, shown, "/keys", name="Checkout"))
    action = next(form.action for form in Shown(page).forms if "/delete" in form.action)

    answers = [await follow(browser, await submit(browser, page, action)) for _ in range(2)]

    assert all("The key is deleted." in text_of(answer) for answer in answers)
    assert all("Checkout" not in text_of(answer) for answer in answers)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": ""}, "at least 1 character"),
        ({"name": "x", "expires_at": "2020-01-01"}, "past"),
        ({"name": "x", "allowed_ips": "nowhere"}, "IP address"),
        ({"name": "x" * 101}, "at most 100"),
    ],
)
async def test_what_is_wrong_is_beside_its_field_and_nothing_is_created(
    browser: AsyncClient, fields: dict[str, str], problem: str
) -> None:
    shown = await visit(browser, "/keys")

    answer = await submit(browser, shown, "/keys", **fields)

    assert answer.status_code == 422
    assert problem in text_of(answer)
    assert answer.text.count('aria-invalid="true"') == 1
    assert Shown(answer).form("/keys").fields["name"] == fields["name"]
    assert "No API keys yet" in text_of(await visit(browser, "/keys"))


async def test_markup_in_a_name_is_shown_as_text(browser: AsyncClient) -> None:
    shown = await visit(browser, "/keys")

    page = await follow(
        browser, await submit(browser, shown, "/keys", name="<script>alert(1)</script>")
    )

    assert "<script>" not in page.text
    assert "<script>alert(1)</script>" in text_of(page)


async def test_another_accounts_key_cannot_be_deleted(world: World, browser: AsyncClient) -> None:
    shown = await visit(browser, "/keys")
    page = await follow(browser, await submit(browser, shown, "/keys", name="Mine"))
    action = next(form.action for form in Shown(page).forms if "/delete" in form.action)
    async with world.browser() as other:
        await sign_up(other)
        own = Shown(await visit(other, "/keys")).form("/keys").fields["csrf"]
        await other.post(f"{CONSOLE}{action}", data={"csrf": own})

    assert "Mine" in text_of(await visit(browser, "/keys"))


async def test_while_auth_is_away_the_page_says_so(world: World, browser: AsyncClient) -> None:
    world.away.add("auth")

    page = await visit(browser, "/keys")

    assert page.status_code == 200
    assert "Auth is unavailable" in text_of(page)
    assert "Create a key" in text_of(page)
