"""Sign in, stay signed in, and sign out."""

import time
from copy import copy
from dataclasses import asdict, replace
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import Response
from httpx import AsyncClient

from services.console.sessions.visitors import MAX_COOKIE_BYTES, Cookies, Session
from tests.integration.console.conftest import AUTH, CONSOLE, EMAIL, PASSWORD, World
from tests.integration.console.visits import (
    follow,
    is_signed_in,
    new_email,
    path_of,
    sign_in,
    sign_up,
    submit,
    text_of,
    visit,
)

SESSION = "__Host-tollgate-console"


@pytest.fixture
async def registered(world: World) -> None:
    """Ada is registered; no browser is signed in."""
    async with world.browser() as other:
        await other.post(f"{AUTH}/register", json={"email": EMAIL, "password": PASSWORD})


def session_of(world: World, browser: AsyncClient) -> Session:
    cookies: Cookies = world.console.state.cookies
    document = cookies.sealer.unseal(browser.cookies[SESSION], purpose="session")
    return Session(**document)


def age(world: World, browser: AsyncClient, *, expired: bool) -> None:
    """Replace the session by one whose token must be renewed, or has expired."""
    now = int(time.time())
    ends = now - 1 if expired else now + 600
    aged = replace(session_of(world, browser), renew_at=now - 1, expires_at=ends)
    cookies: Cookies = world.console.state.cookies
    sealed = cookies.sealer.seal(asdict(aged), purpose="session")
    for cookie in list(browser.cookies.jar):
        if cookie.name == SESSION:
            cookie.value = sealed


@pytest.mark.usefixtures("registered")
class TestSignIn:
    async def test_a_person_signs_in_at_auth_and_returns_to_the_page(
        self, browser: AsyncClient
    ) -> None:
        page = await sign_in(browser, "/design")

        assert (page.status_code, path_of(page)) == (200, "/design")
        assert is_signed_in(page)
        assert EMAIL in page.text

    async def test_the_cookies_are_out_of_reach_of_scripts_and_other_sites(
        self, browser: AsyncClient
    ) -> None:
        asked = await browser.get(f"{CONSOLE}/sign-in")
        await visit(browser, "/sign-in")
        shown = await sign_in(browser)

        left = await browser.get(shown.request.url)
        given = asked.headers.get_list("set-cookie")
        assert given
        for cookie in given:
            assert cookie.startswith("__Host-")
            assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
        assert left.headers.get_list("set-cookie") == []
        assert len(browser.cookies[SESSION]) < 4000

    async def test_the_session_is_fresh_at_each_sign_in(
        self, world: World, browser: AsyncClient
    ) -> None:
        await sign_up(browser)
        planted = next(each for each in browser.cookies.jar if each.name == SESSION)
        async with world.browser() as victim:
            victim.cookies.jar.set_cookie(copy(planted))
            await sign_in(victim)
            first = session_of(world, victim)
            await visit(victim, "/sign-in")
            second = session_of(world, victim)

        assert first.email == second.email == EMAIL
        assert len({first.id, second.id, session_of(world, browser).id}) == 3

    @pytest.mark.parametrize(
        "target",
        [
            "https://evil.example.com/",
            "//evil.example.com",
            "/\\evil.example.com",
            "/%09/evil.example.com",
            "\\\\evil.example.com",
            "javascript:alert(1)",
            "/sign-out",
            "/sign-in/callback?code=x",
            "",
        ],
    )
    async def test_nobody_is_sent_to_another_site(self, browser: AsyncClient, target: str) -> None:
        asked = await browser.get(f"{CONSOLE}/sign-in", params={"return_to": target})
        shown = await follow(browser, asked)
        page = await sign_in(browser) if "password" in shown.text else shown

        assert str(page.request.url).startswith(CONSOLE)
        assert page.status_code == 200

    async def test_an_answer_that_another_browser_asked_for_signs_nobody_in(
        self, world: World, browser: AsyncClient
    ) -> None:
        await sign_in(browser)
        asked = await browser.get(f"{CONSOLE}/sign-in")
        answer = await browser.get(asked.headers["Location"])
        async with world.browser() as victim:
            await visit(victim, "/sign-up")
            page = await victim.get(answer.headers["Location"])

            assert page.status_code == 400
            assert SESSION not in victim.cookies

    @pytest.mark.parametrize("change", [{"state": "x"}, {"state": ""}, {"iss": "https://evil"}])
    async def test_a_changed_answer_signs_nobody_in(
        self, world: World, browser: AsyncClient, change: dict[str, str]
    ) -> None:
        asked = await browser.get(f"{CONSOLE}/sign-in")
        query = {k: v[0] for k, v in parse_qs(urlsplit(asked.headers["Location"]).query).items()}
        answer = {"code": "x", "state": query["state"], "iss": AUTH} | change

        page = await browser.get(f"{CONSOLE}/sign-in/callback", params=answer)

        assert page.status_code == 400
        assert SESSION not in browser.cookies

    @pytest.mark.costly
    async def test_a_browser_at_another_name_of_the_console_is_sent_to_its_own(
        self, browser: AsyncClient
    ) -> None:
        answer = await browser.get(f"{CONSOLE}/sign-in", headers={"Host": "localhost:8000"})

        assert answer.headers["Location"] == f"{CONSOLE}/sign-in?return_to=%2F"


@pytest.mark.usefixtures("registered")
class TestRenewal:
    @pytest.mark.parametrize("expired", [False, True])
    async def test_a_token_is_renewed_while_the_visitor_navigates(
        self, world: World, browser: AsyncClient, expired: bool
    ) -> None:
        await sign_in(browser)
        before = session_of(world, browser)
        age(world, browser, expired=expired)

        page = await visit(browser, "/design?x=1")

        after = session_of(world, browser)
        assert is_signed_in(page)
        assert path_of(page) == "/design?x=1"
        assert (after.id, after.user_id) == (before.id, before.user_id)
        assert after.token != before.token
        assert after.expires_at > time.time() + 3000

    async def test_two_tabs_that_renew_at_once_both_stay_signed_in(
        self, world: World, browser: AsyncClient
    ) -> None:
        await sign_in(browser)
        age(world, browser, expired=True)

        first = await browser.get(f"{CONSOLE}/design")
        second = await browser.get(f"{CONSOLE}/")
        ways = [
            await browser.get(f"{CONSOLE}{each.headers['Location']}") for each in (first, second)
        ]
        answers = [await browser.get(each.headers["Location"]) for each in ways]
        pages = [await follow(browser, each) for each in answers]

        assert [path_of(page) for page in pages] == ["/design", "/"]
        assert all(is_signed_in(page) for page in pages)

    async def test_a_form_that_was_open_meanwhile_is_still_accepted(
        self, world: World, browser: AsyncClient
    ) -> None:
        shown = await sign_in(browser)
        age(world, browser, expired=True)
        await visit(browser, "/design")

        answer = await submit(browser, shown, "/sign-out")

        assert answer.status_code == 303
        assert SESSION not in browser.cookies

    async def test_a_visitor_whom_auth_no_longer_knows_is_signed_out_quietly(
        self, world: World, browser: AsyncClient
    ) -> None:
        await sign_in(browser)
        age(world, browser, expired=True)
        browser.cookies.delete("__Host-tollgate-auth")

        page = await visit(browser, "/design")

        assert page.status_code == 200
        assert not is_signed_in(page)

    async def test_while_auth_is_away_a_valid_token_is_used_on(
        self, world: World, browser: AsyncClient
    ) -> None:
        await sign_in(browser)
        age(world, browser, expired=False)
        world.away.add("auth")

        page = await visit(browser, "/design")

        assert is_signed_in(page)

    async def test_while_auth_is_away_an_expired_session_is_explained(
        self, world: World, browser: AsyncClient
    ) -> None:
        await sign_in(browser)
        age(world, browser, expired=True)
        world.away.add("auth")

        page = await visit(browser, "/design")

        assert page.status_code == 503
        assert "Signing in is unavailable" in text_of(page)


async def test_an_hour_after_registering_public_pages_are_shown_and_others_ask_to_sign_in(
    world: World, browser: AsyncClient
) -> None:
    email = new_email()
    await sign_up(browser, email=email)
    age(world, browser, expired=True)

    page = await visit(browser, "/design")
    asked = await visit(browser, "/usage")

    assert (path_of(page), is_signed_in(page)) == ("/design", False)
    assert path_of(asked).startswith("/authorize")
    assert f'value="{email}"' in asked.text


async def test_the_longest_address_and_name_fit_into_the_cookie(browser: AsyncClient) -> None:
    email = f"{'e' * 64}@{'d' * 63}.{'d' * 63}.{'d' * 55}.io"
    await browser.post(f"{AUTH}/register", json={"email": email, "password": PASSWORD})
    await sign_in(browser, email=email)
    shown = await visit(browser, "/organisation")

    page = await follow(browser, await submit(browser, shown, "/organisation", name="€" * 100))

    assert is_signed_in(page)
    assert "€" * 100 in page.text
    assert len(browser.cookies[SESSION]) <= MAX_COOKIE_BYTES


async def test_names_are_shortened_in_a_cookie_that_would_be_too_long(
    world: World, browser: AsyncClient
) -> None:
    await sign_up(browser)
    cookies: Cookies = world.console.state.cookies
    full = replace(session_of(world, browser), id_token="x" * 1000, email="e" * 254)
    response = Response()

    cookies.write_session(response, replace(full, account_name="€" * 100, token="t" * 1300))

    assert len(response.headers["set-cookie"]) < 4096


@pytest.mark.usefixtures("registered")
class TestSignOut:
    async def test_it_ends_the_session_here_and_at_auth(
        self, world: World, browser: AsyncClient
    ) -> None:
        shown = await sign_in(browser)
        token = session_of(world, browser).token

        page = await follow(browser, await submit(browser, shown, "/sign-out"))

        assert not is_signed_in(page)
        assert str(page.request.url) == f"{CONSOLE}/"
        asked = await visit(browser, "/sign-in")
        assert path_of(asked).startswith("/authorize")
        headers = {"Authorization": f"Bearer {token}"}
        assert (await browser.get(f"{AUTH}/users/me", headers=headers)).status_code == 401

    async def test_while_auth_is_away_the_browser_still_forgets(
        self, world: World, browser: AsyncClient
    ) -> None:
        shown = await sign_in(browser)
        world.away.add("auth")

        page = await follow(browser, await submit(browser, shown, "/sign-out"))

        assert not is_signed_in(page)

    @pytest.mark.parametrize("csrf", [None, "", "x", "é"])
    async def test_another_site_cannot_sign_anyone_out(
        self, browser: AsyncClient, csrf: str | None
    ) -> None:
        await sign_in(browser)

        answer = await browser.post(
            f"{CONSOLE}/sign-out", data={"x": "y"} if csrf is None else {"csrf": csrf}
        )

        assert answer.status_code == 403
        assert is_signed_in(await visit(browser, "/design"))


async def test_a_cookie_that_was_changed_is_ignored(browser: AsyncClient) -> None:
    await sign_up(browser)
    for cookie in browser.cookies.jar:
        if cookie.name == SESSION and cookie.value:
            cookie.value = f"{cookie.value[:-10]}AAAAAAAAA="

    page = await visit(browser, "/design")

    assert page.status_code == 200
    assert not is_signed_in(page)
