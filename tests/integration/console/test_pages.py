"""What all pages have in common: what they load, weigh and refuse."""

import re

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from httpx import AsyncClient

from services.console.design.assets import script, style
from tests.integration.console.conftest import AUTH, CONSOLE, World
from tests.integration.console.hostile_models import MODEL, hostile_inference
from tests.integration.console.test_sign_in import session_of
from tests.integration.console.visits import FOREIGN, is_signed_in, sign_up, visit

PUBLIC = ["/", f"/models/{MODEL}", "/sign-up", "/design", "/nowhere"]
SIGNED_IN = ["/keys", "/usage", "/billing", "/invoices", "/organisation"]
MAX_BYTES = 150_000
MAX_SCRIPT_BYTES = 6_000


@pytest.fixture(autouse=True)
def inference(world: World) -> FastAPI:
    world.services["inference"] = hostile_inference()
    return world.services["inference"]


@pytest.fixture
async def visitor(browser: AsyncClient) -> AsyncClient:
    await sign_up(browser)
    return browser


async def test_every_page_loads_only_our_own_files_and_cannot_be_framed(
    visitor: AsyncClient,
) -> None:
    for path in PUBLIC + SIGNED_IN:
        page = await visit(visitor, path)

        policy = dict(
            each.strip().split(" ", 1)
            for each in page.headers["Content-Security-Policy"].split(";")
        )
        assert policy == {
            "default-src": "'self'",
            "form-action": f"'self' {AUTH}",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
        assert page.headers["Cache-Control"] == "no-store"
        loaded = re.findall(r'(?:src|<link[^>]*href)="([^"]+)"', page.text)
        assert all(each.startswith("/assets/") for each in loaded), loaded
        assert not FOREIGN.search(page.text), path


async def test_every_page_is_light_has_one_heading_and_a_way_to_its_content(
    visitor: AsyncClient,
) -> None:
    for path in PUBLIC + SIGNED_IN:
        page = await visit(visitor, path)

        assert len(page.content) + len(style().content) + len(script().content) <= MAX_BYTES, path
        assert page.text.count("<h1>") == 1, path
        assert 'href="#content"' in page.text
        assert "<title>" in page.text
        ids = re.findall(r'\sid="([^"]+)"', page.text)
        assert len(ids) == len(set(ids)), path


async def test_the_style_sheet_and_the_script_are_cached_forever(browser: AsyncClient) -> None:
    sheet = await browser.get(f"{CONSOLE}{style().path}")
    code = await browser.get(f"{CONSOLE}{script().path}")
    missing = await browser.get(f"{CONSOLE}/assets/style.css")

    assert sheet.headers["content-type"] == "text/css; charset=utf-8"
    assert code.headers["content-type"] == "text/javascript; charset=utf-8"
    assert all("immutable" in each.headers["Cache-Control"] for each in (sheet, code))
    assert len(code.content) <= MAX_SCRIPT_BYTES
    assert missing.status_code == 404


async def test_every_page_for_people_who_are_signed_in_sends_others_to_sign_in(
    browser: AsyncClient,
) -> None:
    for path in SIGNED_IN:
        answer = await browser.get(f"{CONSOLE}{path}?x=1")

        assert answer.status_code == 303
        assert answer.headers["Location"] == f"/sign-in?return_to=%2F{path[1:]}%3Fx%3D1"


async def test_no_form_is_accepted_without_the_sessions_token(
    world: World, visitor: AsyncClient, inference: FastAPI
) -> None:
    posts = [
        str(route.path_format)
        for route in iter_route_contexts(world.console.routes)
        if isinstance(route.original_route, APIRoute) and "POST" in (route.methods or ())
    ]
    posts = [path for path in posts if not path.startswith("/admin")]  # see admin/test_access.py
    assert len(posts) >= 9

    for path in posts:
        target = f"{CONSOLE}{path.replace('{id}', 'x').replace('{model}', MODEL)}"
        for fields in ({"name": "x"}, {"csrf": "x", "name": "x"}):
            assert (await visitor.post(target, data=fields)).status_code == 403, path
        assert (await visitor.post(target, json={"csrf": "x"})).status_code == 415, path
    assert inference.state.sent == []


async def test_a_token_that_auth_has_revoked_ends_the_session_in_words(
    world: World, visitor: AsyncClient, running_auth: FastAPI
) -> None:
    token = session_of(world, visitor).token
    await visitor.post(f"{AUTH}/revoke", data={"token": token})

    page = await visit(visitor, "/keys")
    after = await visit(visitor, "/design")

    assert page.status_code == 401
    assert "Your session has ended" in page.text
    assert not is_signed_in(after)
