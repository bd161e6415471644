"""Verify covers all that is given back: no cell changes and no row disappears unnoticed."""

from datetime import datetime
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import delete, select

from harness.issuer import Headers
from harness.usage_events import event
from services.billing.archives.verifying import NO_ARCHIVED_EVENTS
from services.billing.corrections import recalls
from services.billing.corrections.models import CreditNote
from services.billing.corrections.recalls import RecallCreate
from services.billing.database import long_snapshot
from services.billing.invoices.models import AccountCredit, Invoice, LateEvent, ReversedLine
from services.billing.models import LedgerEntry, LedgerPosting
from services.billing.plans.service import plan_ids
from services.billing.usage.comparing import scan_events
from services.billing.verify import verify
from services.billing.verify_corrections import verify_corrections
from services.billing.verify_invoices import verify_invoices
from services.billing.verify_receivables import verify_receivables
from services.billing.verify_usage import verify_usage
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from tests.integration.billing.money import credit, prepaid_plan, spent, store_prepaid, take
from tests.integration.billing.months import (
    AFTER,
    BOOKS,
    DURING,
    LOCAL_PLAN_ID,
    close,
    deliver,
    only_invoice,
    store_profile,
    use,
)
from tests.integration.billing.tampering import cells, changed_cell

NOVEMBER = datetime.fromisoformat("2026-11-20T12:00:00Z")
DECEMBER = datetime.fromisoformat("2026-12-10T12:00:00Z")
PER_ROW = 123_456_789


async def recall(database: Database, model: str, version: str, *, now: datetime) -> None:
    body = RecallCreate(model=model, version=version, reason="Wrong labels.")
    await in_transaction(
        database, lambda session: recalls.create(session, recall=body, by="a test", now=now)
    )
    await recalls.apply(database, now=now)


async def use_version(database: Database, version: str, rows: int) -> None:
    one = event(rows=rows, time=DURING)
    one["data"]["version"] = version
    await deliver(database, [one], now=DURING)


@pytest.fixture
async def books(client: AsyncClient, admin: Headers, database: Database) -> Database:
    """Return taxed usage of either kind, given back in every way, before and after its invoice."""
    await store_profile(database)
    await store_prepaid(database, per_row=PER_ROW)
    await credit(database, 10**11)
    _, (price_id,) = plan_ids(prepaid_plan(PER_ROW))
    paid = [spent(rows, time=DURING, price_id=price_id) for rows in (30, 7)]
    await take(database, paid, now=DURING, plan_id=LOCAL_PLAN_ID)
    await use_version(database, "first", 100_000)
    await use_version(database, "second", 50_001)
    iris = await use(database, 70_000, 3, model="iris")
    await recall(database, "wine", "first", now=DURING)
    october = await only_invoice(database, books=BOOKS)

    async def post(path: str, **body: object) -> None:
        headers = {**admin, "Idempotency-Key": path + str(body)}
        posted = await client.post(path, headers=headers, json={"reason": "An error.", **body})
        assert posted.status_code == 201, posted.text

    await post("/adjustments", events=[iris[0]["id"], paid[0]["id"]])
    await recall(database, "wine", "second", now=AFTER)
    await use(database, 5, now=AFTER)
    await use(database, 1_000, time=NOVEMBER, model="iris")
    await close(database, period="2026-11", now=DECEMBER, books=BOOKS)
    await post(f"/invoices/{october.id}/credit-notes", amount="0.01")
    return database


async def test_consistent_books_have_no_differences(books: Database) -> None:
    assert await verify(books) == []
    async with books.snapshot() as session:
        kinds = set(await session.scalars(select(LedgerEntry.kind)))
        pending = await session.scalars(
            select(AccountCredit.id).where(AccountCredit.invoice_id.is_(None))
        )
        assert pending.all()
    assert kinds == {
        "usage",
        "credit",
        "recall",
        "adjustment",
        "correction",
        "invoice",
        "credit_note",
    }


@pytest.mark.costly
@pytest.mark.any_database
async def test_any_changed_cell_is_found(books: Database) -> None:
    """One test for all cells, because making the books takes longer than verifying them."""
    for table, column in cells("account_credits", "reversed_lines", "late_events"):
        async with changed_cell(books, table, column) as is_changed:
            assert is_changed
            assert await differences(books) != [], (table, column)

    assert await differences(books) == []


async def differences(database: Database) -> list[str]:
    """Return what those checks find that know what is given back."""
    async with long_snapshot(database) as connection:
        scan = await scan_events(connection)
        _, used = await verify_usage(connection, NO_ARCHIVED_EVENTS, scan)
        return [
            *await verify_invoices(connection, NO_ARCHIVED_EVENTS, used),
            *await verify_corrections(connection, NO_ARCHIVED_EVENTS),
            *await verify_receivables(connection),
        ]


def entries(kind: str) -> Any:
    return select(LedgerEntry.id).where(LedgerEntry.kind == kind)


@pytest.mark.costly
@pytest.mark.any_database
@pytest.mark.parametrize("kind", ["credit_note", "invoice", "correction", "recall", "adjustment"])
async def test_missing_entries_are_found(books: Database, kind: str) -> None:
    async with books.transaction() as session:
        ids = (await session.scalars(entries(kind))).all()
        await session.execute(delete(LedgerPosting).where(LedgerPosting.entry_id.in_(ids)))
        await session.execute(delete(LedgerEntry).where(LedgerEntry.id.in_(ids)))

    assert await verify(books) != []


@pytest.mark.costly
@pytest.mark.any_database
@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (delete(AccountCredit).where(AccountCredit.invoice_id.is_(None)), "receivables"),
        (delete(AccountCredit).where(AccountCredit.invoice_id.is_not(None)), "invoices"),
        (delete(CreditNote), "corrections"),
        (delete(Invoice), "receivables"),
        (delete(LateEvent), "late_events"),
        (delete(ReversedLine), "corrections"),
    ],
)
async def test_missing_rows_are_found(books: Database, rows: Any, named: str) -> None:
    async with books.transaction() as session:
        await session.execute(rows)

    found = await verify(books)

    assert named in {difference.partition(":")[0] for difference in found}
