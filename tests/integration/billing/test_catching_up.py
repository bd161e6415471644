"""What pods of the version before leave out during an update is added when a month is closed."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import delete, text

from harness.usage_events import ADA, event
from services.billing.corrections import recalls
from services.billing.corrections.recalls import RecallCreate
from services.billing.invoices.models import LateEvent, ReversedLine
from services.billing.models import UsageBreakdown, UsageVersion
from services.billing.verify import verify
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from tests.integration.billing.months import (
    AFTER,
    DURING,
    close,
    deliver,
    only_invoice,
    use,
)

VERSION = "20261122t000000z-0a1b2c3d"
NOVEMBER = datetime.fromisoformat("2026-11-20T12:00:00Z")
DECEMBER = datetime.fromisoformat("2026-12-10T12:00:00Z")
AMOUNT = 5 * 10**9


async def run(database: Database, *statements: Any) -> None:
    async with database.transaction() as session:
        for statement in statements:
            await session.execute(statement)


async def test_a_late_event_without_its_row_is_invoiced(database: Database) -> None:
    await use(database, 100_000)
    await close(database)
    await use(database, 200_000, now=AFTER)
    await use(database, 100_000, time=NOVEMBER, model="iris")
    unposted = text("UPDATE usage_events SET entry_id = NULL WHERE late")
    await run(database, delete(LateEvent), unposted)

    november = await only_invoice(database, period="2026-11", now=DECEMBER)

    assert [line.model for line in november.lines] == ["iris", "wine"]
    assert november.total == "30"


@pytest.mark.costly
async def test_a_credit_without_an_entry_is_posted(database: Database) -> None:
    await use(database, 100_000)
    await run(
        database,
        text(
            "INSERT INTO credits (account, amount, currency, reason, `by`, created_at)"
            f" VALUES ('{ADA}', {AMOUNT}, 'USD', 'A test.', 'a test', '2026-10-20 12:00:00.000000')"
        ),
        text(f"UPDATE accounts SET available = available + {AMOUNT} WHERE id = '{ADA}'"),
    )
    assert await verify(database) != []

    await close(database)

    assert await verify(database) == []


async def test_reversals_without_their_sums_are_added_up(database: Database) -> None:
    await use(database, 100_000)
    body = RecallCreate(model="wine", version=VERSION, reason="Wrong labels.")
    await in_transaction(
        database, lambda session: recalls.create(session, recall=body, by="a test", now=AFTER)
    )
    await recalls.apply(database, now=AFTER)
    before = await sums(database)
    await run(database, delete(ReversedLine))

    await close(database)

    assert await sums(database) == before != []


@pytest.mark.costly
async def test_events_without_their_breakdowns_are_added_up(database: Database) -> None:
    tagged = event(rows=3, time=DURING)
    tagged["data"] |= {"tags": {"team": "a", "project": "b"}, "api_key": "0198c000"}
    await deliver(database, [tagged], now=DURING)
    await run(database, delete(UsageBreakdown))
    await run(database, delete(UsageVersion))
    await use(database, 100)
    assert await verify(database) != []

    await close(database)

    assert await verify(database) == []


async def sums(database: Database) -> list[tuple[object, ...]]:
    async with database.snapshot() as session:
        found = await session.execute(text("SELECT * FROM reversed_lines"))
        return [tuple(row) for row in found]
