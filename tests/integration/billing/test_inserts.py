"""Many rows in one statement: every value is stored exactly as given."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from harness.usage_events import ADA
from services.billing import bulk_insert as billing_database
from services.billing.bulk_insert import (
    ColumnInsert,
    by_column,
    insert_all,
    insert_rows,
    table_of,
    upsert,
    upserting,
)
from services.billing.invoices.models import NumberSeries
from services.billing.models import Account, IdempotencyRecord, UsageEvent
from services.common.db.database import Database

NOON = datetime(2026, 11, 10, 12, 30, 15, 123456, tzinfo=UTC)
HOSTILE = ["it's", 'a"b', "back\\slash\\", "100%", "%s", "%(id)s", "?,:id", "'),('", "--", "NULL"]


def receipt(event_id: str, **columns: object) -> dict[str, object]:
    row: dict[str, object] = {
        "time": NOON,
        "id": event_id,
        "source": "/inference",
        "account": ADA,
        "model": "wine",
        "version": "1",
        "rows": 1,
        "client_id": None,
        "price_id": "price",
        "amount_high": 5,
        "amount": 2**63 - 1,
        "period": "2026-11",
        "late": False,
        "journal": "journal",
        "sequence": None,
        "received_at": NOON,
        "api_key": None,
        "tags": None,
        "input_sha256": None,
        "entry_id": 1,
    }
    return row | columns


class TestInsertRows:
    async def stored(self, database: Database) -> list[dict[str, object]]:
        async with database.snapshot() as session:
            found = await session.execute(select(table_of(UsageEvent)).order_by(UsageEvent.id))
            return [dict(row) for row in found.mappings()]

    async def test_every_kind_of_value_is_read_back_unchanged(self, database: Database) -> None:
        moments = [NOON.replace(microsecond=0), NOON, NOON.replace(microsecond=5)]
        rows = [receipt(f"{n}", time=moment) for n, moment in enumerate(moments)]
        rows += [receipt(f"x{n}", model=text) for n, text in enumerate(HOSTILE)]
        rows += [receipt("y1", late=True, sequence=1), receipt("y2", rows=0, client_id="me")]

        async with database.transaction() as session:
            await insert_rows(session, insert(table_of(UsageEvent)), rows)

        assert await self.stored(database) == rows

    async def test_more_rows_than_fit_in_a_statement_are_stored(self, database: Database) -> None:
        count = 2 * billing_database._ROWS_PER_STATEMENT + 1
        rows = [receipt(f"{n:06d}", time=NOON + timedelta(seconds=n)) for n in range(count)]

        async with database.transaction() as session:
            await insert_rows(session, insert(table_of(UsageEvent)), rows)

        assert await self.stored(database) == rows

    async def test_the_order_of_a_rows_columns_does_not_matter(self, database: Database) -> None:
        row = receipt("one")

        async with database.transaction() as session:
            await insert_rows(session, insert(table_of(UsageEvent)), [dict(reversed(row.items()))])

        assert await self.stored(database) == [row]

    async def test_text_is_stored_with_and_without_escaping(self, database: Database) -> None:
        texts = ["plain", "a'b", "plain", *HOSTILE]
        rows = [receipt(f"{n:02d}", version="1", model=text) for n, text in enumerate(texts)]

        async with database.transaction() as session:
            await insert_rows(session, insert(table_of(UsageEvent)), rows)

        assert await self.stored(database) == rows


class TestInsertAll:
    async def test_inserts_run_in_their_order_and_see_the_rows_before(
        self, database: Database
    ) -> None:
        count = billing_database._ROWS_PER_STATEMENT + 1
        dialect = database.engine.dialect.name

        def inserts() -> Iterator[ColumnInsert]:
            rows = [counted(f"{n:06d}", 1) for n in range(count)]
            yield insert(table_of(NumberSeries)), by_column(rows)
            rows = [counted(f"{n:06d}", n) for n in range(count)]
            yield upserting(NumberSeries, rows, dialect=dialect, add=["last"])

        async with database.transaction() as session:
            await insert_all(session, inserts())

        assert await self.stored(database) == [n + 1 for n in range(count)]

    async def test_after_a_failed_insert_none_runs_and_nothing_is_stored(
        self, database: Database
    ) -> None:
        statement = insert(table_of(NumberSeries))
        twice, once = by_column([counted("a", 1)] * 2), by_column([counted("b", 1)])

        with pytest.raises(IntegrityError):
            async with database.transaction() as session:
                await insert_all(session, [(statement, twice), (statement, once)])

        assert await self.stored(database) == []

    async def test_an_error_while_rows_are_made_reaches_the_caller(
        self, database: Database
    ) -> None:
        def inserts() -> Iterator[ColumnInsert]:
            yield insert(table_of(NumberSeries)), by_column([counted("a", 1)])
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            async with database.transaction() as session:
                await insert_all(session, inserts())

        assert await self.stored(database) == []

    async def test_they_do_not_wait_for_threads_that_do_other_work(
        self, database: Database
    ) -> None:
        over = threading.Event()
        loop = asyncio.get_running_loop()
        others = [loop.run_in_executor(None, over.wait, 60) for _ in range(64)]
        statement = insert(table_of(NumberSeries))
        try:
            async with asyncio.timeout(20), database.transaction() as session:
                await insert_all(session, [(statement, by_column([counted("a", 1)]))])
        finally:
            over.set()
            await asyncio.gather(*others)

        assert await self.stored(database) == [1]

    async def stored(self, database: Database) -> list[int]:
        async with database.snapshot() as session:
            return list(await session.scalars(select(NumberSeries.last).order_by(NumberSeries.id)))


def counted(series: str, last: int) -> dict[str, object]:
    return {"id": series, "last": last}


class TestUpsert:
    async def test_existing_rows_are_added_to_or_replaced(self, database: Database) -> None:
        row = {"id": ADA, "currency": "USD", "created_at": NOON}
        row |= {"available": 5, "available_high": 0}
        async with database.transaction() as session:
            await upsert(session, Account, [row])
            await upsert(session, Account, [row | {"available": -7}], add=["available"])
            await upsert(session, Account, [row | {"currency": "EUR"}], put=["currency"])

        async with database.snapshot() as session:
            account = await session.get(Account, ADA)
        assert account is not None
        assert (account.available_low, account.currency) == (-2, "EUR")

    async def test_a_composite_key_is_found_again(self, database: Database) -> None:
        keys = [f"k{text}" for text in HOSTILE]
        rows = [
            {"caller": ADA, "key": key, "path": "/credits", "request": "r", "started_at": NOON}
            for key in keys
        ]
        for _ in range(2):
            async with database.transaction() as session:
                await upsert(session, IdempotencyRecord, rows)

        async with database.snapshot() as session:
            found = set(await session.scalars(select(IdempotencyRecord.key)))
        assert found == set(keys)
