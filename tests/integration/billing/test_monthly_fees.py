"""Monthly fees on invoices: pro rata by day, previewed, posted, verified, and billed once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import select, update

from harness.issuer import Headers
from harness.plans import plan, price
from harness.usage_events import ADA, BOB, Json
from services.billing.invoices import closing
from services.billing.invoices.factur_x import as_xml
from services.billing.invoices.pdf import as_pdf
from services.billing.invoices.rendering import as_csv, as_html
from services.billing.invoices.schemas import InvoiceRead
from services.billing.models import Account, Base, LedgerPosting, Period, Plan
from services.billing.verify import verify
from services.common.db.database import Database
from tests.integration.billing.fees import cancel, store_fee_plan, subscribe
from tests.integration.billing.money import new_id
from tests.integration.billing.months import (
    AFTER,
    BOOKS,
    LOCAL_PLAN_ID,
    LOCAL_PRICE_ID,
    PERIOD,
    close,
    close_until,
    only_invoice,
    preview,
    store_profile,
    use,
)
from tests.integration.billing.tampering import changed_cell
from tests.integration.billing.test_invoice_previews import as_body


def fees(invoice: InvoiceRead) -> list[tuple[str, str, str | None]]:
    """Return plan, amount and description of the fee lines."""
    return [
        (line.price_id, line.amount, line.description)
        for line in invoice.lines
        if line.kind == "monthly_fee"
    ]


async def test_a_fee_without_usage_is_invoiced(database: Database) -> None:
    team = await store_fee_plan(database)
    await subscribe(database, team, "2026-09-20T10:00:00")
    await close(database, "2026-09")

    invoice = await only_invoice(database)

    assert (invoice.number, invoice.currency, invoice.total) == ("INV-000002", "USD", "31")
    (line,) = invoice.lines
    assert (line.kind, line.model, line.price_id) == ("monthly_fee", None, team)
    assert (line.requests, line.rows, line.versions, line.unit_prices) == (0, 0, [], [])
    assert (line.amount, line.rounded, line.description) == ("31", "31", "Monthly fee: Team")
    assert await verify(database) == []


@pytest.mark.costly
async def test_days_are_charged_from_the_first_to_the_day_before_a_change(
    database: Database,
) -> None:
    team, large = await store_fee_plan(database), await store_fee_plan(database, "62", name="Large")
    await subscribe(database, team, "2026-10-05T23:59:59")
    await subscribe(database, large, "2026-10-15T00:00:00")
    await subscribe(database, team, "2026-10-16T09:00:00")
    await subscribe(database, large, "2026-10-16T10:00:00")
    await cancel(database, "2026-10-21T08:00:00")
    await use(database, 10_000)

    invoice = await only_invoice(database)

    assert fees(invoice) == [
        (team, "10", "Monthly fee: Team, 10 of 31 days"),
        (large, "12", "Monthly fee: Large, 6 of 31 days"),
    ]
    assert [line.kind for line in invoice.lines] == ["usage", "monthly_fee", "monthly_fee"]
    assert invoice.subtotal == "23"
    assert await verify(database) == []


async def test_a_preview_equals_the_invoice_that_follows(database: Database) -> None:
    team = await store_fee_plan(database, "9.99")
    await store_profile(database)
    await subscribe(database, team, "2026-10-12T12:00:00")
    now = datetime(2026, 10, 12, 13, tzinfo=UTC)

    without_usage = await preview(database, books=BOOKS, now=now)
    await use(database, 123_456, 7)
    before = await preview(database, books=BOOKS, now=now)
    invoice = await only_invoice(database, books=BOOKS)

    assert [(line.amount, line.rounded) for line in without_usage.lines] == [("6.44516129", "6.45")]
    assert as_body(before) == as_body(invoice)
    assert await verify(database) == []


async def test_a_cancellation_on_the_first_day_of_a_month_leaves_nothing_to_invoice(
    database: Database,
) -> None:
    team = await store_fee_plan(database)
    await subscribe(database, team, "2026-09-30T10:00:00")
    await cancel(database, "2026-10-01T00:00:01")

    assert (await close(database)).invoices == []
    assert await verify(database) == []


async def test_fees_are_revenue_and_owed_in_one_entry_that_adds_up_to_zero(
    database: Database,
) -> None:
    team = await store_fee_plan(database, "10.005")
    await store_profile(database)
    await subscribe(database, team, "2026-09-01T10:00:00")

    invoice = await only_invoice(database, books=BOOKS)

    async with database.snapshot() as session:
        postings = list(await session.scalars(select(LedgerPosting)))
    assert invoice.total == "11.9"
    assert {each.ledger: each.amount_low for each in postings} == {
        "receivable": 11_900_000_000,
        "tax": -1_900_000_000,
        "rounding": 5_000_000,
        "revenue": -10_005_000_000,
    }
    assert await verify(database) == []


class TestClosing:
    async def test_a_repeat_and_two_runs_at_once_bill_each_fee_once(
        self, database: Database
    ) -> None:
        team = await store_fee_plan(database)
        for account in (ADA, BOB):
            await subscribe(database, team, "2026-09-01T10:00:00", account=account)
        await use(database, 1, account=BOB)

        one, other = await asyncio.gather(close(database), close(database))
        again = await close(database)

        assert one == other == again
        assert sorted(each.account for each in again.invoices) == [ADA, BOB]
        assert await verify(database) == []

    @pytest.mark.costly
    @pytest.mark.parametrize("died_at", [1, 3, 5])
    async def test_a_run_that_died_continues(
        self, database: Database, monkeypatch: pytest.MonkeyPatch, died_at: int
    ) -> None:
        monkeypatch.setattr(closing, "ACCOUNTS_AT_ONCE", 1)
        team = await store_fee_plan(database)
        accounts = sorted(new_id() for _ in range(6))
        for account in accounts[::2]:
            await use(database, 1, account=account)
        for account in accounts:
            await subscribe(database, team, "2026-10-31T10:00:00", account=account)

        await close_until(database, died_at)
        run = await close(database)

        assert sorted(each.account for each in run.invoices) == accounts
        assert {each.total for each in run.invoices} == {"1"}
        assert sorted(each.number for each in run.invoices) == [f"INV-{n:06d}" for n in range(1, 7)]
        assert await verify(database) == []

    async def test_a_change_at_a_clock_that_is_behind_changes_no_closed_month(
        self, database: Database
    ) -> None:
        team = await store_fee_plan(database)
        await subscribe(database, team, "2026-10-01T10:00:00")
        end = datetime(2026, 11, 1, tzinfo=UTC)
        await close(database, now=end)

        await cancel(database, end - timedelta(seconds=30))

        assert (await close(database)).invoices[0].total == "31"
        assert (await close(database, "2026-11", now=end + timedelta(days=40))).invoices == []
        assert await verify(database) == []

    async def test_the_version_before_closes_a_month_without_fees(self, database: Database) -> None:
        team = await store_fee_plan(database)
        await subscribe(database, team, "2026-10-01T10:00:00")
        of_the_month = update(Period).where(Period.id == PERIOD)
        async with database.transaction() as session:
            await session.execute(
                of_the_month.values(closed_at=AFTER, invoiced_at=AFTER, bills_fees=False)
            )

        assert (await close(database)).invoices == []
        assert await verify(database) == []

    async def test_a_plan_in_a_currency_that_cannot_serve_the_account_is_not_billed(
        self, database: Database
    ) -> None:
        team = await store_fee_plan(database, currency="EUR")
        await subscribe(database, team, "2026-10-01T10:00:00")
        async with database.transaction() as session:  # as if the version before had assigned it
            await session.execute(update(Account).values(currency="USD"))
        await use(database, 10_000, price_id=LOCAL_PRICE_ID)

        invoice = await only_invoice(database)

        assert [line.kind for line in invoice.lines] == ["usage"]
        assert await verify(database) == []


class TestCorrections:
    @pytest.mark.costly
    async def test_a_fee_is_given_back_by_a_credit_note(
        self, client: AsyncClient, admin: Headers, database: Database
    ) -> None:
        team = await store_fee_plan(database)
        await store_profile(database)
        await subscribe(database, team, "2026-09-01T10:00:00")
        await use(database, 100_000)
        invoice = await only_invoice(database, books=BOOKS)
        path = f"/invoices/{invoice.id}/credit-notes"

        async def give_back(key: str, **body: Any) -> Json:
            headers = {**admin, "Idempotency-Key": key}
            response = await client.post(path, headers=headers, json={"reason": "Sorry.", **body})
            answer: Json = response.json()
            return answer

        part = await give_back("1", lines=[{"line": 1, "amount": "6.89"}])
        rest = await give_back("2", lines=[1])
        more = await give_back("3", lines=[1])

        assert [part["amount"], rest["amount"], more["status"]] == ["6.89", "30", 409]
        assert await verify(database) == []


class TestFiles:
    async def test_every_format_names_the_fee_and_its_days(self, database: Database) -> None:
        team = await store_fee_plan(database)
        await subscribe(database, team, "2026-10-31T10:00:00")
        await store_profile(database)

        invoice = await only_invoice(database)

        named = "Monthly fee: Team, 1 of 31 days"
        assert f'monthly_fee,"{named}",,{team},0,0,1,1' in as_csv(invoice)
        assert named in as_html(invoice)
        assert f"<ram:Name>{named}</ram:Name>" in (as_xml(invoice) or "")
        assert as_pdf(invoice).startswith(b"%PDF")


class TestVerify:
    @pytest.mark.parametrize("column", ["monthly_fee", "monthly_fee_high", "name", "currency"])
    async def test_a_changed_plan_is_found_before_it_is_billed(
        self, database: Database, column: str
    ) -> None:
        async with database.transaction() as session:
            await session.execute(update(Plan).values(created_at=AFTER))
        await store_fee_plan(database)

        async with changed_cell(database, "plans", column, number=await _number(database)) as done:
            differences = await verify(database)

        assert done
        assert any("has been changed" in each for each in differences)
        assert await verify(database) == []

    @pytest.mark.costly
    async def test_any_changed_day_or_amount_is_found(self, database: Database) -> None:
        team = await store_fee_plan(database)
        await subscribe(database, team, "2026-10-05T10:00:00")
        await only_invoice(database)

        changes: list[tuple[str, dict[str, Any]]] = [
            ("account_plans", {"effective_from": datetime(2026, 10, 6, tzinfo=UTC)}),
            ("account_plans", {"account": BOB}),
            ("account_plans", {"plan_id": LOCAL_PLAN_ID}),
            ("account_plans", {"follows_default": True}),
            ("invoice_lines", {"amount": 1}),
            ("plans", {"monthly_fee": 0}),
        ]
        found = [await _with(database, *change) for change in changes]

        assert [bool(differences) for differences in found] == [True] * len(changes)
        assert await verify(database) == []

    async def test_a_missing_invoice_is_found(self, database: Database) -> None:
        team = await store_fee_plan(database)
        await close(database)
        async with database.transaction() as session:
            await session.execute(update(Period).values(closed_at=None))
        await subscribe(database, team, "2026-10-05T10:00:00")

        assert [each.partition(":")[0] for each in await verify(database)] == ["invoices"]


class TestPlanPreviews:
    async def test_the_fee_counts_before_and_after(
        self, client: AsyncClient, admin: Headers, database: Database
    ) -> None:
        team = await store_fee_plan(database)
        await subscribe(database, team, "2026-10-22T10:00:00")
        await use(database, 10_000, account=BOB)
        dearer = plan(price((None, "1", "0")), monthly_fee="5")

        response = await client.post(
            "/plans/preview", headers=admin, json={"plan": dearer, "period": PERIOD}
        )

        assert response.json() == {
            "period": PERIOD,
            "accounts": [
                {"account": ADA, "before": "10", "after": "5"},
                {"account": BOB, "before": "1.0005", "after": "6"},
            ],
            "total": {"before": "11.0005", "after": "11"},
        }

    async def test_a_stored_plan_for_one_account(
        self, client: AsyncClient, admin: Headers, database: Database
    ) -> None:
        team = await store_fee_plan(database)
        await subscribe(database, team, "2026-10-22T10:00:00", account=BOB)
        await use(database, 10_000)

        response = await client.post(
            "/plans/preview",
            headers=admin,
            json={"plan": team, "account": ADA, "period": PERIOD},
        )

        assert response.json()["accounts"] == [
            {"account": ADA, "before": "1.0005", "after": "32.0005"}
        ]


async def _number(database: Database) -> int:
    """Return which plan has a fee, in the order of their ids."""
    async with database.snapshot() as session:
        plans = list(await session.scalars(select(Plan).order_by(Plan.id)))
    return next(n for n, each in enumerate(plans) if each.monthly_fee_low)


async def _with(database: Database, table: str, values: dict[str, Any]) -> list[str]:
    """Return what `verify` finds while the rows of a table that concern fees are changed."""
    columns = Base.metadata.tables[table]
    async with database.transaction() as session:
        rows = (await session.execute(select(columns))).mappings().all()
        concerned = [row for row in rows if row.get("monthly_fee", 1)]
        keys = [column.key for column in columns.primary_key]
        (before,) = ({key: row[key] for key in (*keys, *values)} for row in concerned)
        is_row = [columns.c[key] == before[key] for key in keys]
        await session.execute(update(columns).where(*is_row).values(values))
    differences = await verify(database)
    async with database.transaction() as session:
        old = {name: before[name] for name in values}
        await session.execute(update(columns).where(*is_row).values(old))
    return differences
