"""Usage, the open month, invoices and the billing profile on the console."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from services.common.db.database import Database
from tests.integration.billing.fees import store_fee_plan
from tests.integration.billing.months import LOCAL_PLAN_ID, PERIOD, close, use
from tests.integration.console.conftest import CONSOLE, World
from tests.integration.console.test_sign_in import session_of
from tests.integration.console.visits import Shown, follow, sign_up, submit, text_of, visit

PROFILE = {
    "name": "Ada Ltd",
    "email": "bills@example.com",
    "country": "de",
    "vat_id": "DE136695976",
    "address": "Street 1\r\n10115 Berlin",
}


@pytest.fixture(autouse=True)
async def account(world: World, browser: AsyncClient) -> str:
    await sign_up(browser)
    return session_of(world, browser).account


@pytest.fixture
def database(running_billing: FastAPI) -> Database:
    database: Database = running_billing.state.database
    return database


class TestUsage:
    @pytest.mark.costly
    async def test_a_month_without_calls_says_what_to_do_next(self, browser: AsyncClient) -> None:
        page = await visit(browser, "/usage")

        assert "No calls in this period" in text_of(page)
        assert 'data-testid="usage-requests">0<' in page.text

    async def test_it_shows_the_calls_by_day_and_by_model(
        self, browser: AsyncClient, database: Database, account: str
    ) -> None:
        await use(database, 1, 2, account=account, time=datetime.now(UTC))

        page = await visit(browser, "/usage")
        by_version = await visit(browser, "/usage?by=version")

        assert 'data-testid="usage-requests">2<' in page.text
        assert 'data-testid="usage-amount">$0.0013<' in page.text
        assert "<svg" in page.text
        assert "20261122t000000z-0a1b2c3d" in text_of(by_version)

    @pytest.mark.parametrize("query", ["?range=x&by=y", "?tag=%3Cscript%3E", "?range=365"])
    async def test_any_address_shows_a_range(self, browser: AsyncClient, query: str) -> None:
        page = await visit(browser, f"/usage{query}")

        assert page.status_code == 200
        assert "<script>" not in page.text

    async def test_a_range_shows_only_its_days(
        self, browser: AsyncClient, database: Database, account: str
    ) -> None:
        now = datetime.now(UTC)
        day, before = (f"{now - timedelta(days=n):%Y-%m-%d}" for n in (0, 1))
        await use(database, 1, account=account, time=now)

        today = await visit(browser, f"/usage?from={day}&to={day}")
        yesterday = await visit(browser, f"/usage?from={before}&to={before}")

        assert 'data-testid="usage-requests">1<' in today.text
        assert 'data-testid="usage-requests">0<' in yesterday.text
        assert 'data-live="usage"' in today.text
        assert "data-live" not in yesterday.text

    async def test_what_is_wrong_with_a_range_is_beside_its_field(
        self, browser: AsyncClient
    ) -> None:
        page = await visit(browser, "/usage?from=2026-02-02&to=2026-02-01")

        assert page.status_code == 422
        assert 'id="f-from-error"' in page.text
        assert 'value="2026-02-02"' in page.text

    async def test_the_events_of_a_month_can_be_downloaded(
        self, browser: AsyncClient, database: Database, account: str
    ) -> None:
        await use(database, 1, account=account, time=datetime.now(UTC))

        answer = await visit(browser, "/usage/export.csv")

        assert answer.headers["content-type"].startswith("text/csv")
        assert "attachment" in answer.headers["content-disposition"]
        assert account in answer.text

    async def test_money_is_in_the_visitors_locale(
        self, browser: AsyncClient, database: Database, account: str
    ) -> None:
        await use(database, *[1] * 3, account=account, time=datetime.now(UTC))
        browser.headers["Accept-Language"] = "de-DE,de;q=0.9"

        page = await visit(browser, "/usage")

        assert "0,0018\xa0$" in text_of(page).replace("&nbsp;", "\xa0") or "0,0018" in page.text


class TestPlan:
    async def test_another_plan_is_chosen_and_shown_with_its_fee(
        self, browser: AsyncClient, database: Database, account: str
    ) -> None:
        team = await store_fee_plan(database, "30", description="For teams.")
        private = await store_fee_plan(database, "5", name="Private", public=False)
        euros = await store_fee_plan(database, "5", name="Euros", currency="EUR")

        shown = await visit(browser, "/billing")
        page = await follow(browser, await submit(browser, shown, "/billing/plan", plan=team))
        back = await submit(browser, page, "/billing/plan", plan=LOCAL_PLAN_ID)

        assert "Local" in text_of(shown)
        assert "No monthly fee" in text_of(shown)
        assert f'value="{team}"' in shown.text
        assert private not in shown.text
        assert euros not in shown.text
        assert "You are now on the plan “Team”." in text_of(page)
        assert "For teams. $30.00 a month, since" in text_of(page)
        assert f'value="{team}"' not in page.text
        assert "Monthly fee: Team" in text_of(page)  # in the open month
        assert "on the plan “Local”" in text_of(await follow(browser, back))

    @pytest.mark.parametrize("plan", ["unknown", "", "é"])
    async def test_a_plan_that_billing_refuses_changes_nothing(
        self, browser: AsyncClient, database: Database, account: str, plan: str
    ) -> None:
        await store_fee_plan(database, "30")
        shown = await visit(browser, "/billing")

        answer = await submit(browser, shown, "/billing/plan", plan=plan)

        assert answer.status_code in (404, 422)
        assert 'class="alert danger"' in answer.text
        assert "No monthly fee" in text_of(answer)

    async def test_a_form_that_the_console_has_not_shown_changes_nothing(
        self, browser: AsyncClient, database: Database
    ) -> None:
        team = await store_fee_plan(database, "30")

        answer = await browser.post(f"{CONSOLE}/billing/plan", data={"plan": team})

        assert answer.status_code == 403
        assert "No monthly fee" in text_of(await visit(browser, "/billing"))

    async def test_while_billing_is_away_it_says_that_nothing_changed(
        self, world: World, browser: AsyncClient, database: Database
    ) -> None:
        team = await store_fee_plan(database, "30")
        shown = await visit(browser, "/billing")
        world.away.add("billing")

        answer = await submit(browser, shown, "/billing/plan", plan=team)

        assert answer.status_code == 503
        assert "the plan was not changed" in text_of(answer)


class TestBilling:
    async def test_it_shows_the_balance_and_the_open_month(
        self, browser: AsyncClient, database: Database, account: str
    ) -> None:
        await use(database, 1, account=account, time=datetime.now(UTC))

        page = await visit(browser, "/billing")

        assert 'data-testid="balance">$0.00<' in page.text
        assert 'data-testid="invoice-total">$0.00<' in page.text
        assert "$0.0006" in text_of(page)

    async def test_the_profile_is_stored_and_shown_again(self, browser: AsyncClient) -> None:
        shown = await visit(browser, "/billing")

        page = await follow(browser, await submit(browser, shown, "/billing", **PROFILE))

        assert "The profile is saved." in text_of(page)
        kept = Shown(page).form("/billing").fields
        assert (kept["name"], kept["country"]) == ("Ada Ltd", "DE")
        assert kept["address"] == "Street 1\n10115 Berlin"

    @pytest.mark.parametrize(
        ("changes", "wrong"),
        [({"vat_id": "DE1"}, 1), ({"country": "Germany"}, 1), ({"name": "", "email": "x"}, 2)],
    )
    async def test_what_is_wrong_is_beside_its_field_and_nothing_is_stored(
        self, browser: AsyncClient, changes: dict[str, str], wrong: int
    ) -> None:
        shown = await visit(browser, "/billing")
        sent = PROFILE | changes

        answer = await submit(browser, shown, "/billing", **sent)

        assert answer.status_code == 422
        assert answer.text.count('aria-invalid="true"') == wrong
        assert "pattern" not in text_of(answer)
        assert Shown(answer).form("/billing").fields["email"] == sent["email"]
        again = await visit(browser, "/billing")
        assert Shown(again).form("/billing").fields["email"] == ""


class TestInvoices:
    async def test_an_account_without_invoices_is_told_what_comes(
        self, browser: AsyncClient
    ) -> None:
        page = await visit(browser, "/invoices")

        assert "No invoices yet" in text_of(page)

    async def test_an_invoice_is_shown_and_downloaded(
        self, world: World, browser: AsyncClient, database: Database, account: str
    ) -> None:
        await use(database, 1000, account=account)
        await close(database)

        listed = await visit(browser, "/invoices")
        target = next(each for each in Shown(listed).links if each.startswith("/invoices/"))
        page = await visit(browser, target)
        pdf = await visit(browser, f"{target}.pdf")
        csv = await visit(browser, f"{target}.csv")

        assert 'data-testid="invoice-total">$0.10<' in page.text
        assert pdf.content.startswith(b"%PDF-")
        assert csv.text.startswith("number,")
        async with world.browser() as other:
            await sign_up(other)
            for path in (target, f"{target}.pdf"):
                assert (await other.get(f"{CONSOLE}{path}")).status_code == 404
        assert PERIOD == "2026-10"


async def test_while_billing_is_away_each_part_says_so(world: World, browser: AsyncClient) -> None:
    world.away.add("billing")

    pages = [await visit(browser, path) for path in ("/usage", "/billing", "/invoices")]

    assert [page.status_code for page in pages] == [200] * 3
    assert all("Billing is unavailable" in text_of(page) for page in pages)
