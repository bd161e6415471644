"""What the script of an open page fetches takes nothing from the pages that people open."""

from httpx import AsyncClient

from tests.integration.console.conftest import AUTH, CONSOLE, PASSWORD, World
from tests.integration.console.test_sign_in import age
from tests.integration.console.visits import new_email, sign_in, sign_up, submit, visit

REFRESH = {"X-Refresh": "1"}


async def test_a_key_is_still_shown_after_another_tab_was_refreshed(browser: AsyncClient) -> None:
    await sign_up(browser)
    shown = await visit(browser, "/keys")
    await submit(browser, shown, "/keys", name="Checkout")

    refreshed = await browser.get(f"{CONSOLE}/usage", headers=REFRESH)
    page = await visit(browser, "/keys")

    assert refreshed.status_code == 200
    assert 'data-testid="api-key"' not in refreshed.text
    assert 'data-testid="api-key"' in page.text


async def test_a_refresh_does_not_renew_the_session_and_ends_with_it(
    world: World, browser: AsyncClient
) -> None:
    email = new_email()
    await browser.post(f"{AUTH}/register", json={"email": email, "password": PASSWORD})
    await sign_in(browser, email=email)

    age(world, browser, expired=False)
    refreshed = await browser.get(f"{CONSOLE}/usage", headers=REFRESH)
    opened = await browser.get(f"{CONSOLE}/usage")
    age(world, browser, expired=True)
    ended = await browser.get(f"{CONSOLE}/usage", headers=REFRESH)

    assert (refreshed.status_code, opened.status_code, ended.status_code) == (200, 303, 303)
    assert "silent=1" in opened.headers["Location"]
