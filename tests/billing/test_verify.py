"""Verifying: a clean database says nothing, and whatever was tampered with is named."""

from typing import Any

import pytest
from sqlalchemy import delete, update

from services.billing.models import (
    Account,
    Base,
    Credit,
    EventKey,
    Journal,
    JournalRange,
    Receipt,
    Slice,
    UsageHour,
    UsageMonth,
)
from services.billing.verify import verify
from services.common.db import Database
from tests.billing.money import NOON, ask, credit, granted, spent, store_prepaid, take
from tests.billing.wire import ADA, event


@pytest.fixture
async def books(database: Database) -> Database:
    """Some of everything that can be verified."""
    await store_prepaid(database)
    await credit(database, 100)
    await granted(database, ask(1, want=50))
    await take(database, [spent(20, 1), spent(3), spent(2, 2, id="r"), spent(2, 3, id="r")])
    await take(database, [event(time=NOON, rows=3, account=ADA, sequence=9)])
    return database


async def test_books_that_agree_say_nothing(books: Database) -> None:
    assert await verify(books) == []


async def test_an_empty_database_agrees(database: Database) -> None:
    assert await verify(database) == []


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (update(UsageHour).values(amount_low=UsageHour.amount_low + 1), ["usage_hours"]),
        (update(UsageHour).values(requests=UsageHour.requests - 1), ["usage_hours"]),
        (delete(UsageMonth), ["usage_months"]),
        (update(UsageMonth).values(rows=UsageMonth.rows + 1), ["usage_months"]),
        (update(Slice).values(settled_low=Slice.settled_low + 1), ["slices", "balances"]),
        (update(Slice).values(granted_low=Slice.granted_low + 1), ["balances"]),
        (update(Account).values(available_low=Account.available_low - 1), ["balances"]),
        (delete(Credit), ["balances"]),
        (update(Account).values(currency="EUR"), ["accounts"]),
        (delete(EventKey), ["usage_event_keys"]),
        (update(Journal).values(received=Journal.received + 1), ["journals"]),
        (update(Journal).values(highest=Journal.highest - 1), ["journals"]),
        (delete(JournalRange), ["journals"]),
        (
            delete(Receipt).where(Receipt.rows == 20),
            ["usage_hours", "usage_months", "slices", "balances"],
        ),
    ],
)
async def test_what_was_tampered_with_is_named(
    books: Database, statement: Any, named: list[str]
) -> None:
    async with books.transaction() as session:
        await session.execute(statement)

    differences = await verify(books)

    tables = [difference.partition(":")[0] for difference in differences]
    assert list(dict.fromkeys(tables)) == named
    assert all(ADA in each or each.startswith("journals") for each in differences)


async def test_its_view_leaves_no_trace_in_the_pool(books: Database) -> None:
    await verify(books)

    async with books.transaction() as session:
        await session.execute(delete(Base.metadata.tables["journal_ranges"]))
