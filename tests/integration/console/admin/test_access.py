"""The pages for administrators: who may see them, and what they have in common."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from httpx import AsyncClient

from harness.usage_events import event
from services.common.db.database import Database
from services.console.design.assets import script, style
from tests.integration.billing.money import take
from tests.integration.billing.months import LOCAL_PLAN_ID
from tests.integration.console.conftest import AUTH, CONSOLE, PASSWORD, World
from tests.integration.console.hostile_models import MODEL
from tests.integration.console.visits import FOREIGN, new_email, sign_up, submit, text_of, visit

HOSTILE = "'\"><script>alert(1)</script>"
PAGES = [
    "/admin",
    "/admin/search?q=e",
    "/admin/accounts",
    "/admin/accounts/{account}",
    "/admin/models",
    f"/admin/models/{MODEL}",
    "/admin/plans",
    "/admin/plans/preview?plan={plan}",
    "/admin/invoices",
    "/admin/invoices?account={account}",
    "/admin/recalls",
    f"/admin/recalls?model={MODEL}&version=x",
    "/admin/events",
    "/admin/events/{event}?account={account}",
    "/admin/journals",
    "/admin/audit",
]
MAX_BYTES = 150_000


def admin_routes(world: World, method: str) -> Iterator[str]:
    for route in iter_route_contexts(world.console.routes):
        path = str(route.path_format)
        is_page = isinstance(route.original_route, APIRoute) and path.startswith("/admin")
        if is_page and method in (route.methods or ()):
            yield path.replace("{id}", "x").replace("{model}", "x")


@pytest.fixture
async def pages(
    administrator: AsyncClient, database: Database, buyer: str, plan_name: str
) -> list[str]:
    """The addresses of all pages, with an account that has used something."""
    used = event(account=buyer, model=MODEL)
    await take(database, [used], now=datetime.now(UTC), plan_id=LOCAL_PLAN_ID)
    shown = await visit(administrator, "/admin/plans")
    fields = {"name": f"{plan_name}{HOSTILE}", "per_request": "1", "per_row": "0"}
    await submit(administrator, shown, "/admin/plans", **fields)
    shown = await visit(administrator, "/admin/plans")
    plan = re.findall(r"preview\?plan=([0-9a-f-]+)", shown.text)[-1]
    return [each.format(account=buyer, event=used["id"], plan=plan) for each in PAGES]


class TestOthers:
    @pytest.mark.costly
    async def test_those_who_are_no_administrators_get_a_plain_page(
        self, world: World, browser: AsyncClient
    ) -> None:
        await sign_up(browser)

        for path in admin_routes(world, "GET"):
            page = await visit(browser, path)
            assert page.status_code == 403, path
            assert "This page is for administrators." in text_of(page)
            assert "revenue" not in page.text.lower()
        for path in admin_routes(world, "POST"):
            assert (await browser.post(f"{CONSOLE}{path}", data={"x": "y"})).status_code == 403

    async def test_who_is_signed_out_is_sent_to_sign_in(
        self, world: World, browser: AsyncClient
    ) -> None:
        for path in admin_routes(world, "GET"):
            answer = await browser.get(f"{CONSOLE}{path}")
            assert answer.status_code == 303
            assert answer.headers["Location"].startswith("/sign-in?return_to=%2Fadmin")

    async def test_only_administrators_are_shown_the_way(
        self, administrator: AsyncClient, world: World
    ) -> None:
        own = await visit(administrator, "/design")
        async with world.browser() as other:
            others = await sign_up(other)

        assert 'href="/admin"' in own.text
        assert 'href="/admin"' not in others.text

    @pytest.mark.costly
    async def test_no_form_is_accepted_without_the_sessions_token(
        self, world: World, administrator: AsyncClient
    ) -> None:
        paths = list(admin_routes(world, "POST"))
        assert len(paths) >= 7

        for path in paths:
            for fields in ({"name": "x"}, {"csrf": "x", "name": "x"}):
                answer = await administrator.post(f"{CONSOLE}{path}", data=fields)
                assert answer.status_code == 403, path
            answer = await administrator.post(f"{CONSOLE}{path}", json={"csrf": "x"})
            assert answer.status_code == 415, path


@pytest.mark.costly
async def test_every_page_is_light_has_one_heading_and_no_markup_of_others(
    administrator: AsyncClient, pages: list[str]
) -> None:
    for path in pages:
        page = await visit(administrator, path)

        assert page.status_code == 200, path
        assert len(page.content) + len(style().content) + len(script().content) <= MAX_BYTES, path
        assert len(re.findall("<h1[ >]", page.text)) == 1, path
        assert not FOREIGN.search(page.text), path
        ids = re.findall(r'\sid="([^"]+)"', page.text)
        assert len(ids) == len(set(ids)), path


@pytest.mark.costly
@pytest.mark.parametrize("name", ["auth", "inference", "billing"])
async def test_while_an_api_is_away_each_page_says_so_and_shows_the_rest(
    world: World, administrator: AsyncClient, pages: list[str], name: str
) -> None:
    world.away.add(name)

    texts = [(path, await visit(administrator, path)) for path in pages]

    for path, page in texts:
        assert page.status_code in (200, 503), path
        assert "Something went wrong" not in page.text
    assert any(f"{name.capitalize()} is unavailable" in page.text for _, page in texts)


async def test_a_users_name_is_shown_as_text(
    world: World, administrator: AsyncClient, running_auth: FastAPI
) -> None:
    async with world.browser() as other:
        email = new_email()
        await other.post(f"{AUTH}/register", json={"email": email, "password": PASSWORD})
        form = {"grant_type": "password", "username": email, "password": PASSWORD}
        token = (await other.post(f"{AUTH}/token", data=form)).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        await other.patch(f"{AUTH}/users/me", headers=headers, json={"name": HOSTILE})

    page = await visit(administrator, f"/admin/accounts?q={email}")

    assert email in page.text
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
