"""The console's script in a real browser, and the same pages without it."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from harness.platform import Platform
from harness.samples import WINE
from harness.waiting import eventually
from tests.e2e.browsers import WAIT_MS
from tests.e2e.test_console import (  # noqa: F401  # the fixtures of the buyer's tests
    DESK,
    SHIFTS,
    browser,
    phone,
    sign_up,
)

POLL_MS = 15_000
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture
def desk(browser: Browser, platform: Platform) -> Iterator[Page]:  # noqa: F811
    """A page of someone who has just registered, with scripts and a clipboard."""
    context = browser.new_context(
        base_url=platform.urls["console"],
        viewport=DESK,
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    sign_up(page)
    yield page
    context.close()


def create_key(page: Page) -> str:
    """Create an API key on its page; return it."""
    page.goto("/keys")
    page.fill("[name=name]", "Checkout")
    page.get_by_role("button", name="Create key").click()
    return page.get_by_test_id("api-key").inner_text()


def predict(platform: Platform, key: str) -> None:
    """Make a billed call."""
    httpx.post(
        f"{platform.urls['inference']}/v1/models/wine:predict",
        headers={"X-API-Key": key},
        json={"instances": [WINE]},
        trust_env=False,
    ).raise_for_status()


def test_a_key_and_a_sample_are_copied_and_this_is_announced(desk: Page) -> None:
    key = create_key(desk)
    shifts_before = desk.evaluate(SHIFTS)
    desk.get_by_role("button", name="Copy the key").click()

    assert desk.evaluate("navigator.clipboard.readText()") == key
    expect(desk.get_by_role("status").last).to_have_text("Copied the key.")
    assert desk.evaluate(SHIFTS) == shifts_before

    desk.goto("/models/wine")
    desk.get_by_role("button", name="Copy curl code").click()

    assert desk.evaluate("navigator.clipboard.readText()").startswith("curl http")


def test_figures_follow_new_calls_and_leave_what_someone_is_doing(
    desk: Page, platform: Platform
) -> None:
    key = create_key(desk)
    desk.clock.install()
    desk.goto("/usage")
    desk.locator("[name=tag]").press_sequentially("chec")
    expect(desk.get_by_test_id("usage-requests")).to_have_text("0")

    predict(platform, key)

    def is_counted() -> bool:
        with desk.expect_response("**/usage") as answered:
            desk.clock.run_for(POLL_MS)
        answered.value.finished()
        return desk.get_by_test_id("usage-requests").inner_text() == "1"

    eventually(is_counted)
    expect(desk.locator("[name=tag]")).to_be_focused()
    expect(desk.locator("[name=tag]")).to_have_value("chec")


def test_a_hidden_page_asks_for_nothing_and_a_failing_api_ever_less_often(desk: Page) -> None:
    asked = list[str]()

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.abort()

    desk.clock.install()
    desk.goto("/usage")
    desk.route("**/usage", refuse)

    desk.evaluate(HIDE, True)
    desk.clock.run_for(10 * POLL_MS)
    assert asked == []

    with desk.expect_event("requestfailed"):
        desk.evaluate(HIDE, False)
        desk.clock.run_for(1)
    desk.clock.run_for(POLL_MS + 14_000)
    assert len(asked) == 1
    with desk.expect_event("requestfailed"):
        desk.clock.run_for(2_000)
    assert len(asked) == 2


def test_a_page_stays_as_it_is_after_another_tab_has_switched_accounts(desk: Page) -> None:
    desk.clock.install()
    desk.goto("/usage")
    shown = desk.content()
    others = shown.replace('requests">0<', 'requests">7<')
    answers = [others, others.replace('class="who">', 'class="who">Not ')]
    desk.route(
        "**/usage", lambda route: route.fulfill(body=answers.pop(), content_type="text/html")
    )

    with desk.expect_response("**/usage"):
        desk.clock.run_for(POLL_MS)
    desk.clock.run_for(10 * POLL_MS)

    expect(desk.get_by_test_id("usage-requests")).to_have_text("0")
    assert answers == [others]


def test_without_scripts_a_file_is_predicted_and_its_predictions_downloaded(
    phone: Page,  # noqa: F811
) -> None:
    sign_up(phone)
    phone.goto("/models/wine")
    columns = phone.locator("form[action='/models/wine'] label").all_inner_texts()
    table = "\n".join([",".join(columns), *[",".join(map(str, WINE))] * 30])
    phone.get_by_text("Predict many rows from a CSV").click()

    upload = {"name": "wine.csv", "mimeType": "text/csv", "buffer": table.encode()}
    phone.set_input_files("[name=file]", upload)  # type: ignore[arg-type]
    phone.get_by_role("button", name="Predict the rows").click()

    expect(phone.get_by_test_id("predict-cost")).to_contain_text("$0.0035")
    expect(phone.get_by_role("button", name="Copy")).to_have_count(0)
    with phone.expect_download() as download:
        phone.get_by_role("link", name="Download predictions").click()
    assert download.value.suggested_filename == "wine-predictions.csv"
    assert download.value.path().read_text().count("\n") == 31


@pytest.mark.costly
def test_a_file_that_is_far_too_large_is_refused_beside_its_field(desk: Page) -> None:
    desk.goto("/models/wine")
    desk.get_by_text("Predict many rows from a CSV").click()
    upload = {"name": "x.csv", "mimeType": "text/csv", "buffer": b"1,2\n" * 250_000}

    desk.set_input_files("[name=file]", upload)  # type: ignore[arg-type]
    desk.get_by_role("button", name="Predict the rows").click()

    expect(desk.locator("#f-file-error")).to_contain_text("larger than 250 KB")
