"""The console in a real browser, as a seller uses it: without scripts, and accessible."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from cli.local import state
from harness.platform import Platform
from harness.usage_events import event
from harness.waiting import eventually
from tests.e2e.browsers import WAIT_MS
from tests.e2e.test_console import (  # noqa: F401  # the fixtures of the buyer's tests
    DESK,
    PHONE,
    axe,
    browser,
    check_all,
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
    phone.fill("#find-text", email)
    phone.get_by_role("button", name="Find").click()
    expect(phone.get_by_role("heading", name=email)).to_be_visible()
    phone.goto("/admin")
    expect(phone.get_by_test_id("revenue")).to_contain_text("$")
    expect(phone.get_by_test_id("errors")).to_be_visible()
    assert phone.get_by_test_id("answered").inner_text() != "0"
    phone.goto("/admin/models/wine")
    expect(phone.get_by_test_id("live-version")).to_be_visible()
    phone.get_by_role("button", name="Change").first.click()
    expect(phone.get_by_role("dialog").locator("code").first).to_contain_text("tollgate models")
    phone.get_by_role("button", name="Close").click()
    expect(phone.get_by_role("dialog")).to_have_count(0)


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
    platform: Platform,
    axe: str,  # noqa: F811
) -> None:
    assert check_all(seller, [*PAGES, *detail_pages(platform)], axe) == []


def detail_pages(platform: Platform) -> list[str]:
    """Bill an event of last month, give some of it back; return the pages that show all this."""
    last_month = datetime.now(UTC).replace(day=1) - timedelta(days=2)
    used = event(account=str(uuid4()), rows=50_000, time=last_month)
    period, account = f"{last_month:%Y-%m}", used["subject"]
    with platform.client("billing", platform.service_token()) as billing:
        headers = {"Content-Type": "application/cloudevents+json"}
        billing.post("/events", json=used, headers=headers).raise_for_status()
    with platform.client("billing", platform.admin_token()) as billing:
        body = {"period": period, "force": True, "reason": "A test."}
        run = billing.post("/billing-runs", json=body).raise_for_status().json()
        invoice = next(each["id"] for each in run["invoices"] if each["account"] == account)
        billing.post(
            f"/invoices/{invoice}/credit-notes",
            json={"amount": "1", "reason": "A test."},
            headers={"Idempotency-Key": uuid4().hex},
        ).raise_for_status()
        plan = billing.get("/plans").json()["plans"][0]["id"]
    return [
        f"/admin/accounts/{account}",
        f"/admin/accounts/{account_of_admin(platform)}",
        f"/admin/events/{used['id']}?account={account}",
        f"/admin/invoices?period={period}",
        f"/admin/invoices?account={account}",
        f"/admin/invoices/{invoice}",
        f"/admin/plans/preview?plan={plan}&period={period}",
        f"/admin/recalls?model=wine&version={used['data']['version']}",
        "/admin/search?q=example",
        "/admin/search?q=nothing-is-called-so",
    ]


def account_of_admin(platform: Platform) -> str:
    """Return the personal account of the administrator, on which there is a note."""
    with platform.client("auth", platform.admin_token()) as auth:
        account = str(auth.get("/users/me").json()["id"])
        body = {"account": account, "text": "Runs the installation.\nAsk before a recall."}
        auth.post("/account-notes", json=body).raise_for_status()
    return account
