"""Verify reads all events once; what follows from that finds the same as a look at each of them."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, literal, select, update

from harness.statements import Statement, noted_statements
from harness.usage_events import BOB, Json
from services.billing.archives.reading import NO_ARCHIVES, Archives
from services.billing.database import long_snapshot
from services.billing.fingerprints import new_weights
from services.billing.invoices.models import InvoiceLine, LateEvent
from services.billing.models import EventKey, LedgerPosting, UsageEvent, UsageHour, UsageMonth
from services.billing.usage import windows
from services.billing.verify import verify
from services.common.db.database import Database
from tests.integration.billing.archived import archive_month
from tests.integration.billing.money import granted, request, spent, store_prepaid
from tests.integration.billing.months import AFTER, deliver, use
from tests.integration.billing.tampering import changed_cell

FOUND_IN = {
    "id": "usage_event_keys",
    "source": "usage_event_keys",
    "account": "usage_hours",
    "model": "usage_hours",
    "version": "usage_breakdowns",
    "rows": "usage_hours",
    "api_key": "usage_breakdowns",
    "price_id": "usage_hours",
    "amount": "ledger",
    "amount_high": "ledger",
    "period": "usage_months",
    "journal": "reservations",
    "entry_id": "ledger",
}
"""The columns of events that are compared with something, and where a changed cell is named."""


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the events in several parts."""
    monkeypatch.setattr(windows, "EVENTS_AT_ONCE", 2)


@pytest.fixture
async def books(database: Database, october: list[Json]) -> Database:
    """A closed and an open month, in which a process has spent credit."""
    await store_prepaid(database)
    await granted(database, request(1, desired=50), now=AFTER)
    await use(database, 2, account=BOB, time=AFTER - timedelta(minutes=1), now=AFTER)
    await deliver(database, [spent(3, 1, time=AFTER)], now=AFTER)
    return database


def groupings(noted: list[Statement]) -> list[str]:
    """Return the statements that group all events: by month, or by ledger entry."""
    plain = (each.sql.replace("`", "") for each in noted)
    months = "GROUP BY usage_events.account, usage_events.period"
    entries = "GROUP BY usage_events.entry_id"
    return [
        each
        for each in plain
        if entries in each or (months in each and "FROM late_events" not in each)
    ]


async def names(database: Database, archives: Archives = NO_ARCHIVES) -> set[str]:
    """Return what `verify` says of which tables."""
    return {each.partition(":")[0] for each in await verify(database, archives)}


@pytest.mark.costly
async def test_consistent_books_are_read_once(books: Database, archives: Archives) -> None:
    for archived in (False, True):
        if archived:
            await archive_month(books, archives)

        with noted_statements(books) as noted:
            assert await verify(books, archives) == []

        # SQLite has no fingerprints, so there the ledger is always compared entry by entry.
        has_fingerprints = books.engine.dialect.name == "mysql"
        assert len(groupings(noted)) == (0 if has_fingerprints else 2)


@pytest.mark.costly
@pytest.mark.parametrize("column", FOUND_IN)
async def test_a_changed_cell_of_an_event_is_named_where_it_matters(
    books: Database, column: str
) -> None:
    for number in (2, -1):  # one of the closed month, and the one that spent credit
        async with changed_cell(books, "usage_events", column, number=number):
            found = await names(books)

        if column != "journal" or number == -1:
            assert FOUND_IN[column] in found, number
    assert await verify(books) == []


@pytest.mark.costly
async def test_events_that_exchange_their_entries_are_found(books: Database) -> None:
    event = UsageEvent
    async with books.transaction() as session:
        alike = select(event.id, event.entry_id).where(event.rows == 5).order_by(event.time)
        (one, its_entry), (other, other_entry) = (await session.execute(alike)).all()
        for id_, entry in ((one, other_entry), (other, its_entry)):
            await session.execute(update(event).where(event.id == id_).values(entry_id=entry))

    assert await names(books) == ({"ledger"} if its_entry != other_entry else set())


@pytest.mark.costly
async def test_an_entry_that_is_only_in_the_postings_is_found(books: Database) -> None:
    line = LedgerPosting
    async with books.transaction() as session:
        last = await session.scalar(select(func.max(line.entry_id)))
        await session.execute(update(line).where(line.entry_id == last).values(entry_id=10**6))

    assert await names(books) >= {"ledger"}


@pytest.mark.costly
async def test_a_late_event_that_is_not_listed_is_named_and_months_agree(books: Database) -> None:
    async with books.transaction() as session:
        await session.execute(delete(LateEvent))

    (difference,) = await verify(books)

    assert difference.startswith("late_events: event ")
    assert difference.endswith(" is missing")


@pytest.mark.costly
async def test_an_event_that_is_not_late_is_not_moved_by_the_list(books: Database) -> None:
    async with books.transaction() as session:
        found = select(UsageEvent).where(UsageEvent.rows == 1)
        for each in await session.scalars(found):
            session.add(
                LateEvent(
                    period=each.period,
                    account=each.account,
                    time=each.time,
                    id=each.id,
                    source=each.source,
                )
            )

    assert await verify(books) == []


@pytest.mark.costly
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (update(UsageMonth).values(rows=UsageMonth.rows + 1), "usage_months"),
        (
            update(UsageMonth).where(UsageMonth.account == BOB).values(period="2026-08"),
            "usage_months",
        ),
        (update(InvoiceLine).values(requests=InvoiceLine.requests + 1), "invoices"),
        (update(UsageHour).values(amount_low=UsageHour.amount_low + 1), "usage_hours"),
        (update(LedgerPosting).values(amount_low=LedgerPosting.amount_low * 2), "ledger"),
        (delete(EventKey), "usage_event_keys"),
    ],
)
async def test_changes_of_archived_months_are_named(
    database: Database, october: list[Json], archives: Archives, change: Any, named: str
) -> None:
    await archive_month(database, archives)
    async with database.transaction() as session:
        await session.execute(change)

    found = await verify(database, archives)

    assert any(each.startswith(named) for each in found)


async def test_weights_are_the_same_in_sql(books: Database) -> None:
    if books.engine.dialect.name != "mysql":
        return
    weights = new_weights()
    keys = (UsageEvent.account, func.coalesce(UsageEvent.entry_id, 0), literal("receivable"))
    async with long_snapshot(books) as connection:
        rows = (await connection.execute(select(*keys, weights.of(*keys)))).all()

    assert len(rows) > 10
    for *key, weight in rows:
        assert weights.value(*key) == weight
