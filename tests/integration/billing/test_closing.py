"""Closing a month: every event is on exactly one invoice, whatever happens meanwhile."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from harness.usage_events import ADA, BOB, event
from services.billing.currencies import UnknownCurrency
from services.billing.invoices import catching_up, closing
from services.billing.invoices.closing import MonthNotOver, UsageMissing
from services.billing.invoices.issuing import Books
from services.billing.invoices.models import Invoice, InvoiceLine, LateEvent
from services.billing.invoices.parties import Party
from services.billing.ledger.posting import post_missing
from services.billing.models import Account, LedgerEntry, LedgerPosting, UsageEvent
from services.billing.verify import verify
from services.common.contracts import parse_amount
from services.common.db.database import Database
from tests.integration.billing.money import new_id
from tests.integration.billing.months import (
    AFTER,
    BOOKS,
    DURING,
    PERIOD,
    UNTAXED,
    close,
    close_until,
    deliver,
    only_invoice,
    preview,
    read_invoice,
    store_profile,
    use,
    use_prepaid,
)
from tests.integration.billing.statements import recorded
from tests.integration.billing.tampering import cells, unnoticed_changes

LIMIT = "SELECT 0 /*M!100000 + @@max_statement_time */ /*!80000 + @@max_execution_time */"
"""Reads the limit of statements, on MariaDB and on MySQL."""


async def events_of(database: Database, account: str, period: str) -> int:
    async with database.snapshot() as session:
        found = await session.scalars(
            select(UsageEvent).where(UsageEvent.account == account, UsageEvent.period == period)
        )
        return sum(each.amount for each in found)


class TestRun:
    async def test_every_account_with_usage_gets_one_invoice(self, database: Database) -> None:
        await use(database, 1, 2)
        await use(database, 3, account=BOB)

        run = await close(database)

        assert [each.account for each in run.invoices] == [ADA, BOB]
        assert [each.number for each in run.invoices] == ["INV-000001", "INV-000002"]
        assert await verify(database) == []

    async def test_a_repeat_returns_the_same(self, database: Database) -> None:
        await use(database, 1, 2)

        first, again = await close(database), await close(database, now=AFTER + timedelta(days=9))

        assert first == again

    async def test_what_is_posted_is_counted_and_added_up_once(self, database: Database) -> None:
        await use(database, 1, 2)

        with recorded(database) as statements:
            await close(database)

        of_the_month = [each for each in statements if "event_reversals" not in each.sql]
        assert len(of_the_month) == 2

    async def test_what_the_version_before_the_ledger_stored_is_posted_without_a_limit(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await use(database, 1, 2)
        async with database.transaction() as session:
            await session.execute(delete(LedgerPosting))
            await session.execute(delete(LedgerEntry))
            await session.execute(update(UsageEvent).values(entry_id=None))
        limits: list[float] = []

        async def post(session: AsyncSession, *, now: datetime) -> int:
            if database.engine.dialect.name == "mysql":
                limits.append(await session.scalar(text(LIMIT)))
            return await post_missing(session, now=now)

        monkeypatch.setattr(catching_up, "post_missing", post)
        await close(database)
        await close(database)

        assert limits in ([0], [])
        assert await verify(database) == []

    @pytest.mark.any_database
    async def test_a_month_that_is_not_over_is_refused(self, database: Database) -> None:
        await use(database, 1)
        last_moment = datetime(2026, 10, 31, 23, 59, 59, 999999, tzinfo=UTC)

        with pytest.raises(MonthNotOver):
            await close(database, now=last_moment)

        await use(database, 1, time=last_moment)
        assert len((await close(database, now=last_moment + timedelta(microseconds=1))).invoices)

    async def test_a_month_without_usage_has_no_invoices(self, database: Database) -> None:
        assert (await close(database)).invoices == []

    @pytest.mark.costly
    async def test_a_currency_that_is_unknown_stops_no_other_account(
        self, database: Database
    ) -> None:
        await use(database, 1)
        await use(database, 2, account=BOB)
        of_ada = update(Account).where(Account.id == ADA)
        async with database.transaction() as session:
            await session.execute(of_ada.values(currency="XXQ"))

        run = await close(database)
        again = await close(database)

        assert run == again
        assert [each.account for each in run.invoices] == [BOB]
        assert [(each.account, each.reason) for each in run.failed] == [
            (ADA, "Currency 'XXQ' is not one of ISO 4217.")
        ]
        with pytest.raises(UnknownCurrency):
            await preview(database, period="2026-11", now=AFTER)
        async with database.transaction() as session:
            await session.execute(of_ada.values(currency="USD"))
        mended = await close(database)
        assert ([each.account for each in mended.invoices], mended.failed) == ([BOB, ADA], [])
        assert await verify(database) == []

    async def test_two_runs_at_once_issue_each_invoice_once(self, database: Database) -> None:
        for _ in range(5):
            await use(database, 1, 2, account=new_id())

        runs = await asyncio.gather(*(close(database) for _ in range(4)))

        assert all(run == runs[0] for run in runs)
        assert [each.number for each in runs[0].invoices] == [f"INV-{n:06d}" for n in range(1, 6)]
        assert await verify(database) == []

    async def test_each_seller_has_a_series_without_gaps(self, database: Database) -> None:
        other = Books(Party(name="Another seller"), ())
        await use(database, 1)
        await use(database, 1, time=DURING - timedelta(days=31))
        await use(database, 1, time=DURING - timedelta(days=61))

        runs = [
            await close(database, "2026-08", books=UNTAXED),
            await close(database, "2026-09", books=other),
            await close(database, "2026-10", books=UNTAXED),
        ]

        numbers = [each.number for run in runs for each in run.invoices]
        assert numbers == ["INV-000001", "INV-000001", "INV-000002"]
        assert await verify(database) == []


class TestGaps:
    async def test_a_run_is_refused_while_usage_is_missing(self, database: Database) -> None:
        await use(database, 1, sequence=1)
        await use(database, 1, sequence=3)

        with pytest.raises(UsageMissing):
            await close(database)

        await use(database, 1, sequence=2)
        assert (await only_invoice(database)).lines[0].requests == 3

    async def test_a_refused_run_leaves_the_month_open(self, database: Database) -> None:
        await use(database, 1, sequence=3)
        with pytest.raises(UsageMissing):
            await close(database)

        await use(database, 1, now=AFTER)

        assert await events_of(database, ADA, PERIOD) == 2 * 600_000

    async def test_a_run_can_be_forced_with_a_reason(self, database: Database) -> None:
        await use(database, 1, sequence=3)

        invoice = await only_invoice(database, forced_reason="The disk is lost.")

        assert invoice.lines[0].requests == 1


class TestEventsMeanwhile:
    async def test_a_late_event_is_on_the_next_invoice(self, database: Database) -> None:
        await use(database, 1)
        await close(database)
        await use(database, 5, now=AFTER)

        first = await close(database)
        (late,) = (await close(database, "2026-11", now=AFTER + timedelta(days=25))).invoices

        assert len(first.invoices) == 1
        assert (await read_invoice(database, late.id)).lines[0].rows == 5
        assert await verify(database) == []

    async def test_events_that_arrive_while_a_month_closes_are_on_exactly_one_invoice(
        self, database: Database
    ) -> None:
        await use(database, 1)
        batches = [[event(time=DURING, rows=n) for _ in range(20)] for n in range(1, 9)]

        closing_run = asyncio.create_task(close(database))
        await asyncio.gather(*(deliver(database, each, now=AFTER) for each in batches))
        run = await closing_run

        (issued,) = run.invoices
        billed = (await read_invoice(database, issued.id)).lines[0]
        after = await preview(database, period="2026-11", now=AFTER)
        late = after.lines[0].requests if after.lines else 0
        assert billed.requests + late == 1 + 8 * 20
        assert await verify(database) == []

    async def test_a_clock_set_back_across_the_end_adds_nothing_to_a_closed_month(
        self, database: Database
    ) -> None:
        end = datetime(2026, 11, 1, tzinfo=UTC)
        await use(database, 1)
        await close(database, now=end)
        before_the_end = end - timedelta(seconds=30)

        await use(database, 7, time=before_the_end, now=before_the_end)

        (again,) = (await close(database)).invoices
        assert (await read_invoice(database, again.id)).lines[0].rows == 1
        assert (await preview(database, period=None, now=before_the_end)).lines[0].rows == 7
        assert await verify(database) == []


class TestInterrupted:
    @pytest.mark.costly
    async def test_a_run_that_died_continues(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(closing, "ACCOUNTS_AT_ONCE", 2)
        accounts = sorted(new_id() for _ in range(7))
        for account in accounts:
            await use(database, 1, account=account)

        await close_until(database, 4)
        run = await close(database)

        assert [each.account for each in run.invoices] == accounts
        assert [each.number for each in run.invoices] == [f"INV-{n:06d}" for n in range(1, 8)]
        assert await verify(database) == []

    async def test_what_the_version_before_has_stored_is_posted(self, database: Database) -> None:
        await use(database, 1)
        async with database.transaction() as session:
            await session.execute(update(UsageEvent).values(entry_id=None))
            await session.execute(delete(LedgerPosting))
            await session.execute(delete(LedgerEntry))

        await close(database)

        assert await verify(database) == []


class TestInvoice:
    async def test_lines_are_exact_and_rounded_once(self, database: Database) -> None:
        await use(database, *range(50))
        await use(database, 9, model="iris")

        invoice = await only_invoice(database)

        exact = await events_of(database, ADA, PERIOD)
        assert sum(parse_amount(line.amount) for line in invoice.lines) == exact
        assert [(line.model, line.rounded) for line in invoice.lines] == [
            ("iris", "0"),
            ("wine", "0.15"),
        ]
        assert invoice.subtotal == invoice.total == "0.15"

    async def test_a_line_names_every_version(self, database: Database) -> None:
        events = [event(time=DURING), event(time=DURING)]
        events[1]["data"]["version"] = "20261001t000000z-ffffffff"
        await deliver(database, events, now=DURING)

        (line,) = (await only_invoice(database)).lines

        assert line.versions == ["20261001t000000z-ffffffff", "20261122t000000z-0a1b2c3d"]
        assert line.requests == 2

    async def test_tax_follows_the_profile(self, database: Database) -> None:
        await store_profile(database)
        await use(database, 1_000_000)

        invoice = await only_invoice(database, books=BOOKS)

        assert invoice.buyer.name == "Ada Lovelace Ltd"
        assert (invoice.subtotal, invoice.tax.amount, invoice.total) == ("100", "19", "119")
        assert await verify(database) == []

    async def test_what_was_paid_from_the_balance_is_not_owed_again(
        self, database: Database
    ) -> None:
        await use_prepaid(database)

        invoice = await only_invoice(database)

        assert invoice.subtotal == "0.3"
        assert [(each.id, each.amount) for each in invoice.credits] == [("prepaid", "0.3")]
        assert invoice.total == "0"


@pytest.mark.costly
@pytest.mark.any_database
async def test_any_changed_cell_of_an_invoice_is_found(database: Database) -> None:
    await store_profile(database)
    await use(database, 123_456)
    await close(database, books=BOOKS)

    changes = cells("invoices", "invoice_lines", "number_series")
    unnoticed = await unnoticed_changes(database, changes)

    assert unnoticed == []
    assert await verify(database) == []


async def test_late_events_are_listed_once(database: Database) -> None:
    await close(database)
    await use(database, 5, now=AFTER)

    async with database.snapshot() as session:
        assert await session.scalar(select(func.count()).select_from(LateEvent)) == 1
        assert await session.scalar(select(func.count()).select_from(Invoice)) == 0
        assert await session.scalar(select(func.count()).select_from(InvoiceLine)) == 0
