"""Register on the console."""

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import SecretStr

from services.auth.app import create_app as create_auth
from services.auth.openid.returns import read_return
from services.auth.settings import AuthSettings, ProviderSettings
from tests.integration.console.conftest import AUTH, CONSOLE, EMAIL, PASSWORD, World
from tests.integration.console.visits import (
    Shown,
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


async def test_a_new_user_is_signed_in_at_once(browser: AsyncClient) -> None:
    page = await sign_up(browser)

    assert (page.status_code, path_of(page)) == (200, "/")
    assert is_signed_in(page)


async def test_a_new_user_can_sign_out_and_in_again(browser: AsyncClient) -> None:
    email = new_email()
    shown = await sign_up(browser, email=email)
    gone = await follow(browser, await submit(browser, shown, "/sign-out"))

    page = await sign_in(browser, email=email)

    assert not is_signed_in(gone)
    assert is_signed_in(page)


async def test_the_visitor_returns_to_the_page_they_came_from(browser: AsyncClient) -> None:
    shown = await visit(browser, "/sign-up?return_to=/design")

    sent = await submit(browser, shown, "/sign-up", email=new_email(), password=PASSWORD)

    assert sent.headers["Location"] == "/design"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"email": "", "password": PASSWORD}, "Enter your e-mail address."),
        ({"email": "ada", "password": PASSWORD}, "e-mail"),
        ({"email": EMAIL, "password": "short"}, "8"),
        ({"email": EMAIL, "password": ""}, "Choose a password"),
        ({"email": EMAIL, "password": PASSWORD, "name": "x" * 101}, "at most 100 characters"),
    ],
)
async def test_a_form_with_errors_keeps_what_was_typed(
    browser: AsyncClient, fields: dict[str, str], problem: str
) -> None:
    shown = await visit(browser, "/sign-up")

    answer = await submit(browser, shown, "/sign-up", **fields)

    kept = Shown(answer).form("/sign-up").fields
    assert answer.status_code == 422
    assert problem in text_of(answer)
    assert answer.text.count('aria-invalid="true"') == 1
    assert_described(answer.text)
    assert kept["email"] == fields["email"]
    assert kept["password"] == ""


def assert_described(html: str) -> None:
    """Check that each field has its error or its hint below it, never both."""
    described = re.findall(r'aria-describedby="([^"]+)"', html)
    assert described == re.findall(r'<p class="(?:wrong|hint)" id="([^"]+)"', html)
    assert len({each.rpartition("-")[0] for each in described}) == len(described)


async def test_a_hint_describes_its_field_until_an_error_does(browser: AsyncClient) -> None:
    shown = await visit(browser, "/sign-up")

    answer = await submit(browser, shown, "/sign-up", email=EMAIL, password="")

    assert 'aria-describedby="f-password-hint"' in shown.text
    assert 'aria-invalid="true" aria-describedby="f-password-error"' in answer.text
    assert text_of(answer).count("8 characters") == 1
    assert_described(shown.text)


async def test_a_taken_address_is_shown_beside_the_field(
    world: World, browser: AsyncClient
) -> None:
    await browser.post(f"{AUTH}/register", json={"email": EMAIL, "password": PASSWORD})
    shown = await visit(browser, "/sign-up")

    answer = await submit(browser, shown, "/sign-up", email=EMAIL, password=PASSWORD)

    assert answer.status_code == 409
    assert "already registered" in text_of(answer)


@pytest.fixture
def registration(running_auth: FastAPI, request: pytest.FixtureRequest) -> object:
    """Let users register in the way that the test names."""
    running_auth.state.registration = request.param
    yield
    running_auth.state.registration = "open"


@pytest.mark.usefixtures("registration")
class TestOtherWaysToRegister:
    @pytest.mark.parametrize("registration", ["verify"], indirect=True)
    async def test_where_addresses_are_verified_a_page_says_so(self, browser: AsyncClient) -> None:
        page = await sign_up(browser)

        assert "Check your mail" in text_of(page)
        assert not is_signed_in(page)

    @pytest.mark.parametrize("registration", ["invite"], indirect=True)
    async def test_where_users_are_invited_the_form_says_so(self, browser: AsyncClient) -> None:
        page = await sign_up(browser)

        assert page.status_code == 403
        assert "by invitation only" in text_of(page)


async def test_while_auth_is_away_the_form_keeps_what_was_typed(
    world: World, browser: AsyncClient
) -> None:
    shown = await visit(browser, "/sign-up")
    world.away.add("auth")

    answer = await submit(browser, shown, "/sign-up", email=EMAIL, password=PASSWORD)

    assert answer.status_code == 503
    assert Shown(answer).form("/sign-up").fields["email"] == EMAIL


async def test_markup_in_a_name_or_an_address_is_shown_as_text(browser: AsyncClient) -> None:
    shown = await visit(browser, "/sign-up")
    hostile = '"><script>alert(1)</script>'

    answer = await submit(
        browser,
        shown,
        "/sign-up",
        email=hostile,
        password=PASSWORD,
        name=hostile,
        return_to=hostile,
    )

    assert answer.status_code == 422
    assert "<script>" not in answer.text


async def test_a_form_without_this_browsers_token_is_refused(
    world: World, browser: AsyncClient
) -> None:
    async with world.browser() as other:
        shown = await visit(other, "/sign-up")
    await visit(browser, "/sign-up")

    answer = await submit(browser, shown, "/sign-up", email=EMAIL, password=PASSWORD)
    without = await browser.post(f"{CONSOLE}/sign-up", data={"email": EMAIL, "password": PASSWORD})

    assert (answer.status_code, without.status_code) == (403, 403)


async def test_people_of_a_company_sign_in_with_its_provider_instead(
    world: World, browser: AsyncClient, tmp_path: Path
) -> None:
    company = ProviderSettings(
        name="Example Corp",
        issuer="https://login.test",
        client_id="x",
        client_secret=SecretStr("x"),
    )
    plain = await visit(browser, "/sign-up")
    world.services["auth"] = create_auth(
        AuthSettings(home=tmp_path, issuer=AUTH, providers=(company,))
    )

    page = await visit(browser, "/sign-up?return_to=/design")
    (link,) = [each for each in Shown(page).links if "provider=" in each]
    sent = await browser.get(f"{CONSOLE}{link}")

    there = urlsplit(sent.headers["Location"])
    back = read_return(dict(parse_qsl(there.query))["continue"])
    assert "company" not in plain.text
    assert (f"{there.scheme}://{there.netloc}", there.path) == (
        AUTH,
        "/sign-in/with/Example%20Corp",
    )
    assert back is not None
    assert back.path == "/authorize"
    assert dict(parse_qsl(back.query))["client_id"] == "console"
