"""The docs pages in a real browser: they work without internet, sign in, and predict."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from harness.platform import Platform
from harness.samples import WINE
from tests.e2e.browsers import WAIT_MS, running_browser

# What to try on each page: the operation, and part of its response.
TRIALS = {
    "auth": ("GET", "/users/me", '"email"'),
    "inference": ("POST", "/v1/models/{model}:predict", '"predictions"'),
    "billing": ("GET", "/usage", '"total"'),
}
PAGES = ["inference", *(pytest.param(name, marks=pytest.mark.slow) for name in ("auth", "billing"))]
"""All services have their pages from the same code."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


@pytest.mark.parametrize("service", PAGES)
def test_a_docs_page_signs_in_and_calls_without_leaving_this_machine(
    service: str, platform: Platform, browser: Browser
) -> None:
    method, path, expected = TRIALS[service]
    account = platform.register_user()
    page = browser.new_page()
    urls: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("console", lambda message: problems.append(message.text))

    page.goto(f"{platform.urls[service]}/docs")
    sign_in(page, *account)
    answer = try_out(page, method, path)

    assert expected in answer
    assert [url for url in urls if not url.startswith((*platform.urls.values(), "data:"))] == []
    assert [text for text in problems if "Security Policy" in text] == []
    page.close()


@pytest.mark.costly
@pytest.mark.parametrize("service", PAGES)
def test_no_other_page_can_frame_a_docs_page(
    service: str, platform: Platform, browser: Browser
) -> None:
    page = browser.new_page()
    page.goto(f"{platform.urls['auth']}/healthz")

    with page.expect_console_message(
        lambda message: "frame-ancestors" in message.text, timeout=WAIT_MS
    ):
        page.set_content(f'<iframe src="{platform.urls[service]}/docs"></iframe>')

    assert all(frame.locator("#swagger-ui").count() == 0 for frame in page.frames)
    page.close()


def sign_in(page: Page, email: str, password: str) -> None:
    """Sign in with the Authorize button, as a person does."""
    page.locator("button.btn.authorize").click(timeout=WAIT_MS)
    page.locator("#oauth_username").fill(email)
    page.locator("#oauth_password").fill(password)
    page.get_by_role("button", name="Apply given OAuth2 credentials").click()
    expect(page.locator(".modal-ux button", has_text="Logout")).to_be_visible(timeout=WAIT_MS)
    page.locator(".modal-ux button.btn-done").first.click()  # inference and billing take keys too


def try_out(page: Page, method: str, path: str) -> str:
    """Execute an operation with a filled form; return the body, whose status must be 200."""
    operation = page.locator(f".opblock-{method.lower()}").filter(
        has=page.locator(f'.opblock-summary-path[data-path="{path}"]')
    )
    operation.locator(".opblock-summary").click()
    if "{model}" in path:
        operation.locator('tr[data-param-name="model"] input').fill("wine")
        operation.locator("textarea.body-param__text").fill(f'{{"instances": [{WINE}]}}')
    operation.locator("button.execute").click()
    answered = operation.locator(".live-responses-table")
    expect(answered.locator(".response-col_status").last).to_contain_text("200", timeout=WAIT_MS)
    return answered.inner_text()
