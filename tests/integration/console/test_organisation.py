"""Organisations on the console: accounts, members and roles."""

from httpx import AsyncClient

from tests.integration.console.conftest import AUTH, EMAIL, PASSWORD, World
from tests.integration.console.test_sign_in import session_of
from tests.integration.console.visits import (
    follow,
    new_email,
    sign_in,
    sign_up,
    submit,
    text_of,
    visit,
)


async def begin(browser: AsyncClient) -> str:
    """Register and sign in at auth, as someone does who comes back; return the address."""
    email = new_email()
    await browser.post(f"{AUTH}/register", json={"email": email, "password": PASSWORD})
    await sign_in(browser, email=email)
    return email


async def test_a_new_organisation_is_used_at_once(world: World, browser: AsyncClient) -> None:
    await begin(browser)
    shown = await visit(browser, "/organisation")

    page = await follow(browser, await submit(browser, shown, "/organisation", name="Engines"))

    session = session_of(world, browser)
    assert "Engines" in text_of(page)
    assert (session.account_name, session.role) == ("Engines", "owner")
    assert session.account != session.user_id


async def test_a_person_switches_between_their_accounts(world: World, browser: AsyncClient) -> None:
    await begin(browser)
    shown = await visit(browser, "/organisation")
    await follow(browser, await submit(browser, shown, "/organisation", name="Engines"))

    shown = await visit(browser, "/organisation")
    page = await follow(browser, await submit(browser, shown, "/account"))

    assert session_of(world, browser).is_personal
    assert "Your personal account" in text_of(page)


async def test_a_new_user_creates_an_organisation_before_they_have_signed_in_at_auth(
    browser: AsyncClient,
) -> None:
    await sign_up(browser)
    shown = await visit(browser, "/organisation")

    page = await follow(browser, await submit(browser, shown, "/organisation", name="Engines"))

    assert "“Engines” is created" in text_of(page)


async def test_a_name_that_is_refused_is_shown_beside_the_field(browser: AsyncClient) -> None:
    await sign_up(browser)
    shown = await visit(browser, "/organisation")

    answer = await submit(browser, shown, "/organisation", name=" ")

    assert answer.status_code == 422
    assert answer.text.count('aria-invalid="true"') == 1


async def test_members_are_invited_and_removed(world: World, browser: AsyncClient) -> None:
    await begin(browser)
    invited = new_email()
    shown = await visit(browser, "/organisation")
    page = await follow(browser, await submit(browser, shown, "/organisation", name="Engines"))

    page = await follow(
        browser,
        await submit(browser, page, "/organisation/members", email=invited, role="viewer"),
    )

    assert f"{invited} is invited by e-mail." in text_of(page)
    assert "Invited" in text_of(page)


async def test_the_last_owner_cannot_leave(world: World, browser: AsyncClient) -> None:
    await begin(browser)
    shown = await visit(browser, "/organisation")
    page = await follow(browser, await submit(browser, shown, "/organisation", name="Engines"))
    user = session_of(world, browser).user_id

    answer = await submit(browser, page, f"/organisation/members/{user}/delete")

    assert answer.status_code == 409
    assert "owner" in text_of(answer)


async def test_while_auth_is_away_the_page_says_so(world: World, browser: AsyncClient) -> None:
    await sign_up(browser)
    world.away.add("auth")

    page = await visit(browser, "/organisation")

    assert page.status_code == 200
    assert "Auth is unavailable" in text_of(page)
    assert EMAIL not in page.text
