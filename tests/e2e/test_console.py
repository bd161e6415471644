"""The console in a real browser, as a buyer uses it: on a phone, and without scripts."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Literal

import httpx
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from harness.platform import Platform
from harness.programs import ROOT, find_program
from harness.waiting import eventually
from tests.e2e.browsers import WAIT_MS, running_browser
from tests.integration.auth.pages import link_in

AXE = Path(__file__).parent / "axe"
SCREENSHOTS = ROOT / "build" / "screenshots"
PHONE: ViewportSize = {"width": 320, "height": 640}
DESK: ViewportSize = {"width": 1280, "height": 800}
LOOKS: Sequence[tuple[ViewportSize, Literal["light", "dark"]]] = ((DESK, "light"), (PHONE, "dark"))
PASSWORD = "correct horse battery"
NEW_PASSWORD = "another long password"
PUBLIC = ("/", "/models/wine", "/sign-up", "/design", "/nowhere")
SIGNED_IN = ("/models/wine", "/keys", "/usage", "/billing", "/invoices", "/organisation")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
MAX_SHIFT = 0.01
"""A busy machine paints a page before it is parsed, which nobody sees; 0.1 counts as good."""
AXE_RUN = """async options => (await axe.run(document, options)).violations.map(
  each => `${each.id}: ${each.nodes[0].html.slice(0, 200)}`)"""
SHIFTS = """() => new Promise(done => {
  let sum = 0;
  new PerformanceObserver(list => list.getEntries().forEach(each => {
    if (!each.hadRecentInput) sum += each.value;
  }))
    .observe({type: "layout-shift", buffered: true});
  requestAnimationFrame(() => requestAnimationFrame(() => done(sum)));
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


@pytest.fixture
def phone(browser: Browser, platform: Platform) -> Iterator[Page]:
    """A page of a phone without scripts."""
    context = browser.new_context(
        base_url=platform.urls["console"], viewport=PHONE, java_script_enabled=False
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    yield page
    context.close()


def sign_up(page: Page) -> str:
    """Register; return the address."""
    email = f"buyer-{time.time_ns()}@example.com"
    page.goto("/sign-up")
    page.fill("[name=email]", email)
    page.fill("[name=password]", PASSWORD)
    page.fill("[name=name]", "Ada Lovelace")
    page.get_by_role("button", name="Create account").click()
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    return email


def test_a_buyer_goes_from_the_first_page_to_a_paid_call_without_a_terminal(
    phone: Page, platform: Platform
) -> None:
    email = sign_up(phone)

    phone.get_by_role("link", name="Wine cultivars").click()
    phone.fill("[name=alcohol]", "not a number")
    phone.get_by_role("button", name="Predict", exact=True).click()
    expect(phone.locator("#column-1-error")).to_contain_text("Must be a number")
    phone.fill("[name=alcohol]", "14.23")
    phone.get_by_role("button", name="Predict and explain").click()
    expect(phone.get_by_test_id("predict-result")).to_be_visible()
    expect(phone.get_by_test_id("predict-cost")).to_contain_text("$0.0006")

    phone.goto("/keys")
    phone.fill("[name=name]", "Checkout")
    phone.get_by_role("button", name="Create key").click()
    key = phone.get_by_test_id("api-key").inner_text()
    answer = httpx.post(
        f"{platform.urls['inference']}/v1/models/wine:predict",
        headers={"X-API-Key": key},
        json={"instances": [[13.0] * 13]},
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text

    def is_counted() -> bool:
        phone.goto("/usage")
        return phone.get_by_test_id("usage-requests").inner_text() == "3"

    eventually(is_counted)
    expect(phone.get_by_test_id("usage-amount")).to_have_text("$0.0018")

    phone.locator("summary").first.click()
    phone.get_by_role("button", name="Sign out").click()
    phone.goto("/billing")
    phone.fill("[name=email]", email)
    phone.fill("[name=password]", PASSWORD)
    phone.get_by_role("button", name="Sign in").click()
    expect(phone.get_by_test_id("balance")).to_have_text("$0.00")


def test_a_forgotten_password_is_replaced_without_scripts(phone: Page, platform: Platform) -> None:
    email = sign_up(phone)
    phone.context.clear_cookies()

    phone.goto("/sign-in")
    phone.get_by_role("link", name="Forgot your password?").click()
    phone.get_by_label("E-mail address").fill(email)
    phone.get_by_role("button", name="Send the link").click()
    expect(phone.get_by_role("heading", name="Check your mail")).to_be_visible()
    phone.goto(link_to(email, platform))
    phone.get_by_label("New password").fill(NEW_PASSWORD)
    phone.get_by_role("button", name="Set password").click()
    phone.get_by_role("link", name="Sign in").click()
    phone.fill("[name=email]", email)
    phone.fill("[name=password]", NEW_PASSWORD)
    phone.get_by_role("button", name="Sign in").click()

    expect(phone.get_by_role("heading", name="Models")).to_be_visible()


def link_to(email: str, platform: Platform) -> str:
    """Wait for the mail to an address; return the link in it."""

    def links() -> list[str]:
        files = (platform.home / "mail").glob("*.eml")
        mails = [message_from_bytes(each.read_bytes(), policy=default) for each in files]
        return [link_in(each) for each in mails if each["To"] == email]

    eventually(lambda: bool(links()))
    return links()[0]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script that checks accessibility."""
    folder = tmp_path_factory.mktemp("axe")
    for file in AXE.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    install = [find_program("npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=120)
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


@pytest.mark.slow
def test_every_page_is_accessible_fits_and_does_not_jump(
    browser: Browser, platform: Platform, axe: str
) -> None:
    context = browser.new_context(base_url=platform.urls["console"], bypass_csp=True)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)

    forgotten = f"{platform.urls['auth']}/password-reset"
    problems = check_all(page, [*PUBLIC, "/sign-in", forgotten], axe)
    sign_up(page)
    fill_in(page)
    problems += check_all(page, SIGNED_IN, axe)
    take_pictures(page)
    context.close()

    assert problems == []


def fill_in(page: Page) -> None:
    """Leave something to show on the pages of an account."""
    page.goto("/models/wine")
    page.get_by_role("button", name="Predict", exact=True).click()
    page.goto("/keys")
    page.fill("[name=name]", "Checkout")
    page.get_by_role("button", name="Create key").click()


def check_all(page: Page, paths: Sequence[str], axe: str) -> list[str]:
    """Return what is wrong with pages: in light on a desk, and in dark on a phone.

    The context must bypass the policy of the pages, for the script that checks them.
    """
    problems = list[str]()
    for size, scheme in LOOKS:
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for path in paths:
            page.goto(path)
            page.evaluate(axe)
            found = page.evaluate(AXE_RUN, {"runOnly": RULES})
            width = page.evaluate("document.documentElement.scrollWidth")
            if width > size["width"]:
                found.append(f"is {width} px wide")
            if (shift := page.evaluate(SHIFTS)) > MAX_SHIFT:
                found.append(f"jumps by {shift}")
            problems += [f"{path} in {scheme} at {size['width']} px: {each}" for each in found]
    return problems


def take_pictures(page: Page) -> None:
    """Keep pictures of the pages of someone who is signed in, to be looked at."""
    for size, scheme in LOOKS:
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        for path in ("/", *SIGNED_IN):
            page.goto(path)
            name = path.strip("/").replace("/", "-") or "models"
            file = SCREENSHOTS / f"{name}-{scheme}-{size['width']}.png"
            page.screenshot(path=file, full_page=True)


def test_no_other_page_can_frame_the_console(browser: Browser, platform: Platform) -> None:
    page = browser.new_page()
    page.goto(f"{platform.urls['auth']}/healthz")

    with page.expect_console_message(
        lambda message: "frame-ancestors" in message.text, timeout=WAIT_MS
    ):
        page.set_content(f'<iframe src="{platform.urls["console"]}/sign-up"></iframe>')

    assert all(frame.locator("[name=email]").count() == 0 for frame in page.frames)
    page.close()


def test_the_console_stays_small(platform: Platform) -> None:
    pid = platform.pid("console")

    status = Path(f"/proc/{pid}/status").read_text()

    resident_kib = next(
        int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")
    )
    assert resident_kib <= 120 * 1024
