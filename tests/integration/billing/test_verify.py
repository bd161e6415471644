"""Verify: a clean database has no differences, and any tampering is named."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import make_transient

from harness.usage_events import ADA, event
from services.billing.database import long_snapshot
from services.billing.models import (
    Account,
    Base,
    Credit,
    CreditReservation,
    EventKey,
    LedgerEntry,
    UsageBreakdown,
    UsageEvent,
    UsageHour,
    UsageMonth,
    UsageVersion,
)
from services.billing.sources.models import Journal, JournalRange
from services.billing.usage import service as usage_service
from services.billing.usage.breakdowns import compare_breakdowns
from services.billing.verify import verify
from services.common.db.database import Database
from tests.integration.billing.money import (
    NOON,
    credit,
    granted,
    request,
    spent,
    store_prepaid,
    take,
)
from tests.integration.billing.tampering import cells, changed_cell, unnoticed_changes


@pytest.fixture
async def books(database: Database) -> Database:
    """Return data of every kind that can be verified."""
    await store_prepaid(database)
    await credit(database, 100)
    await granted(database, request(1, desired=50))
    await take(database, [spent(20, 1), spent(3), spent(2, 2, id="r"), spent(2, 3, id="r")])
    await take(database, [event(time=NOON, rows=3, account=ADA, sequence=9)])
    return database


async def test_consistent_books_have_no_differences(books: Database) -> None:
    assert await verify(books) == []


async def test_an_empty_database_has_no_differences(database: Database) -> None:
    assert await verify(database) == []


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (update(UsageHour).values(amount_low=UsageHour.amount_low + 1), ["usage_hours"]),
        (update(UsageHour).values(requests=UsageHour.requests - 1), ["usage_hours"]),
        (delete(UsageMonth), ["usage_months"]),
        (delete(UsageVersion), ["usage_breakdowns"]),
        (update(UsageMonth).values(rows=UsageMonth.rows + 1), ["usage_months"]),
        (
            update(CreditReservation).values(settled_low=CreditReservation.settled_low + 1),
            ["reservations", "balances"],
        ),
        (
            update(CreditReservation).values(granted_low=CreditReservation.granted_low + 1),
            ["balances"],
        ),
        (update(Account).values(available_low=Account.available_low - 1), ["balances"]),
        (delete(Credit), ["ledger"]),
        (update(Account).values(currency="EUR"), ["accounts"]),
        (delete(EventKey), ["usage_event_keys"]),
        (update(Journal).values(received=Journal.received + 1), ["journals"]),
        (update(Journal).values(highest=Journal.highest - 1), ["journals"]),
        (delete(JournalRange), ["journals"]),
        (
            delete(UsageEvent).where(UsageEvent.rows == 20),
            ["usage_hours", "usage_months", "usage_breakdowns", "reservations", "ledger"],
        ),
    ],
)
async def test_tampering_is_named(books: Database, statement: Any, named: list[str]) -> None:
    async with books.transaction() as session:
        await session.execute(statement)

    differences = await verify(books)

    tables = [difference.partition(":")[0] for difference in differences]
    assert list(dict.fromkeys(tables)) == named
    assert all(ADA in each or each.startswith(("journals", "ledger")) for each in differences)


@pytest.mark.costly
@pytest.mark.any_database
async def test_any_changed_cell_of_the_ledger_is_found(books: Database) -> None:
    changes = [
        *cells("ledger_entries", "ledger_postings"),
        ("usage_events", "entry_id"),
        ("credits", "entry_id"),
    ]
    unnoticed = await unnoticed_changes(books, changes, naming="ledger: entry ")

    assert unnoticed == []
    assert await verify(books) == []


@pytest.mark.costly
@pytest.mark.any_database
async def test_any_changed_cell_of_a_breakdown_is_found(books: Database) -> None:
    tagged = event(time=NOON, rows=7)
    tagged["data"] |= {"tags": {"team": "a"}, "api_key": "0198c000"}
    await take(books, [tagged])
    for table, column in cells("usage_breakdowns", "usage_versions"):
        for number in range(3):
            async with (
                changed_cell(books, table, column, number=number) as is_changed,
                long_snapshot(books) as connection,
            ):
                found = [key async for key, _ in compare_breakdowns(connection)]

            assert is_changed
            assert found, (column, number)

    assert await verify(books) == []


async def test_a_missing_entry_is_found(books: Database) -> None:
    async with books.transaction() as session:
        await session.execute(delete(LedgerEntry))

    differences = await verify(books)

    assert any("is missing" in each for each in differences)


async def test_it_leaves_no_changed_connection_in_the_pool(books: Database) -> None:
    await verify(books)

    async with books.transaction() as session:
        await session.execute(delete(Base.metadata.tables["journal_ranges"]))


@pytest.mark.costly
@pytest.mark.any_database
async def test_a_tag_that_differs_everywhere_is_no_difference(
    books: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_service, "TAG_VALUES_PER_HOUR", 3)
    events = [event(time=NOON, rows=1) for _ in range(6)]
    for number, each in enumerate(events):
        each["data"] |= {"tags": {"request": f"r{number}", "team": "a"}}
    await take(books, events[:4])
    await take(books, events[4:])

    assert await verify(books) == []
    async with changed_cell(books, "usage_breakdowns", "value", number=1):
        assert any("tag:" in each for each in await verify(books))


@pytest.mark.costly
@pytest.mark.any_database
async def test_sums_without_events_and_of_a_time_within_an_hour_are_found(books: Database) -> None:
    sums = {"account": ADA, "hour": NOON, "requests": 1, "rows": 1, "amount_low": 1}
    of_hour = sums | {"model": "other", "price_id": "p"}
    tables = (
        UsageHour(**of_hour),
        UsageVersion(**of_hour, version="v9"),
        UsageBreakdown(**sums, dimension="api_key", value="k"),
        UsageBreakdown(**sums, dimension="tag:team", value="a"),
        UsageBreakdown(**sums, dimension="version", value="v9"),
    )
    for row in tables:
        for within in (timedelta(0), timedelta(minutes=5), timedelta(days=400)):
            async with books.transaction() as session:
                row.hour = NOON + within
                session.add(row)
            try:
                found = await verify(books)
            finally:
                async with books.transaction() as session:
                    await session.execute(
                        delete(type(row)).where(type(row).requests == 1, type(row).amount_low == 1)
                    )
            make_transient(row)

            assert [each for each in found if ADA in each], (type(row), within)
    assert await verify(books) == []
