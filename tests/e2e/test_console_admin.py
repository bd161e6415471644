"""The console in a real browser, as a seller uses it: without scripts, and accessible."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from cli.local import state
from harness.platform import Platform
from harness.waiting import eventually
from tests.e2e.browsers import WAIT_MS
from tests.e2e.test_console import (  # noqa: F401  # the fixtures of the buyer's tests
    DESK,
    PHONE,
    axe,
    browser,
    check,
    phone,
    sign_up,
)

PAGES = (
    "/admin",
    "/admin/accounts",
    "/admin/models",
    "/admin/models/wine",
    "/admin/plans",
    "/admin/plans/preview",
    "/admin/invoices",
    "/admin/recalls",
    "/admin/events",
    "/admin/journals",
    "/admin/audit",
)


def sign_in_as_administrator(page: Page, platform: Platform) -> None:
    """Sign in as the administrator of the installation, and open the overview."""
    admin = state.credentials(platform.home)["admin"]
    page.goto("/admin")
    page.fill("[name=email]", admin["email"])
    page.fill("[name=password]", admin["password"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_a_seller_publishes_a_plan_adds_credit_and_sees_revenue(
    phone: Page,  # noqa: F811
    browser: Browser,  # noqa: F811
    platform: Platform,
) -> None:
    context = browser.new_context(base_url=platform.urls["console"], viewport=PHONE)
    buyer = context.new_page()
    buyer.set_default_timeout(WAIT_MS)
    email = sign_up(buyer)
    sign_in_as_administrator(phone, platform)

    phone.goto("/admin/plans")
    phone.fill("[name=name]", email)
    phone.fill("[name=per_request]", "2")
    phone.fill("[name=per_row]", "0")
    phone.get_by_role("button", name="Publish plan").click()
    expect(phone.get_by_role("heading", name=email)).to_be_visible()

    phone.goto(f"/admin/accounts?q={email}")
    phone.get_by_role("link", name=email).click()
    phone.select_option("[name=plan]", label=f"{email} (postpaid, USD)")
    phone.get_by_role("button", name="Change plan").click()
    expect(phone.get_by_text("The plan is set.")).to_be_visible()
    phone.fill("[name=amount]", "25")
    phone.fill("[name=reason]", "Welcome")
    phone.get_by_role("button", name="Add credit").click()
    expect(phone.get_by_test_id("balance")).to_have_text("$25.00")

    buyer.goto("/models/wine")
    buyer.get_by_role("button", name="Predict", exact=True).click()
    expect(buyer.get_by_test_id("predict-cost")).to_contain_text("$2.00")
    context.close()
    account = phone.url

    def shows_revenue() -> bool:
        phone.goto(account)
        return phone.get_by_test_id("usage-amount").inner_text() == "$2.00"

    eventually(shows_revenue)
    phone.goto("/admin")
    expect(phone.get_by_test_id("revenue")).to_contain_text("$")
    expect(phone.get_by_role("link", name=email)).to_be_visible()
    phone.goto("/admin/models/wine")
    expect(phone.get_by_test_id("live-version")).to_be_visible()


@pytest.fixture
def seller(browser: Browser, platform: Platform) -> Iterator[Page]:  # noqa: F811
    """A page of a desk on which the administrator is signed in."""
    context = browser.new_context(base_url=platform.urls["console"], viewport=DESK, bypass_csp=True)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    sign_in_as_administrator(page, platform)
    yield page
    context.close()


@pytest.mark.slow
def test_every_page_of_the_seller_is_accessible_fits_and_does_not_jump(
    seller: Page,
    axe: str,  # noqa: F811
) -> None:
    problems = list[str]()
    for size in (DESK, PHONE):
        seller.set_viewport_size(size)
        problems += [each for path in PAGES for each in check(seller, path, axe)]

    assert problems == []
