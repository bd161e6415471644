"""Concurrent deliveries, in any order, some of them interrupted: the sums stay exact."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from httpx import AsyncClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from harness.issuer import Headers
from harness.plans import LOCAL_PLAN, plan, price
from harness.usage_events import ADA, BOB, deliver, event
from services.billing.events.service import ingest
from services.billing.models import (
    Account,
    Base,
    EventKey,
    Period,
    UsageEvent,
    UsageHour,
    UsageMonth,
)
from services.billing.plans.schemas import PlanCreate
from services.billing.plans.service import plan_ids, store_plan
from services.billing.sources.models import Journal, JournalRange
from services.common.db.database import Database

DEFAULT_PLAN = plan_ids(PlanCreate.model_validate(LOCAL_PLAN))[0]
Sums = dict[tuple[str, ...], tuple[int, int, int]]


async def take(database: Database, events: list[Any]) -> tuple[int, int, int]:
    """Deliver events; return accepted, duplicates and conflicts."""
    result = await ingest(database, items=events, default_plan=DEFAULT_PLAN, now=datetime.now(UTC))
    assert result.rejected == []
    return result.accepted, result.duplicates, result.conflicts


async def sums(database: Database, *, by: tuple[str, ...], of: type[Base]) -> Sums:
    """Sum requests, rows and amount by some columns, of a table of sums or usage events."""
    columns = [getattr(of, name) for name in by]
    counted = func.count() if of is UsageEvent else func.sum(of.requests)  # type: ignore[attr-defined]
    async with database.snapshot() as session:
        rows = await session.execute(
            select(*columns, counted, func.sum(of.rows), func.sum(of.amount_low)).group_by(*columns)  # type: ignore[attr-defined]
        )
        return {tuple(row[:-3]): tuple(int(n) for n in row[-3:]) for row in rows}  # type: ignore[misc]


async def assert_books_agree(database: Database) -> None:
    """Check that identities, usage events, hours and months agree."""
    by_price = ("account", "price_id")
    receipts = await sums(database, by=by_price, of=UsageEvent)
    assert await sums(database, by=by_price, of=UsageHour) == receipts
    by_period = ("account", "period", "price_id")
    by_receipts = await sums(database, by=by_period, of=UsageEvent)
    by_months = await sums(database, by=by_period, of=UsageMonth)
    assert {key: counted for key, counted in by_months.items() if counted[0]} == by_receipts
    async with database.snapshot() as session:
        keys = await session.scalar(select(func.count()).select_from(EventKey))
        events = await session.scalar(select(func.count()).select_from(UsageEvent))
    assert keys == events


class TestAtOnce:
    @pytest.mark.costly
    async def test_one_event_delivered_fifty_times_counts_once(self, database: Database) -> None:
        same = event(rows=3, sequence=1)

        outcomes = await asyncio.gather(*(take(database, [same]) for _ in range(50)))

        assert sorted(outcomes) == [(0, 1, 0)] * 49 + [(1, 0, 0)]
        assert await sums(database, by=("account",), of=UsageHour) == {(ADA,): (1, 3, 800_000)}
        await assert_books_agree(database)

    async def test_of_two_payloads_with_one_id_one_counts(self, database: Database) -> None:
        first = event(rows=1)
        other = first | {"subject": BOB}

        outcomes = await asyncio.gather(*(take(database, [e]) for e in [first, other] * 10))

        assert [sum(column) for column in zip(*outcomes, strict=True)] == [1, 9, 10]
        await assert_books_agree(database)

    async def test_overlapping_batches_end_with_exact_totals(self, database: Database) -> None:
        dice = random.Random(7)
        pool = [
            event(account=dice.choice([ADA, BOB]), rows=dice.randrange(5), sequence=number)
            for number in range(1, 201)
        ]
        batches = [dice.sample(pool, 60) for _ in range(20)]
        distinct = {e["id"]: e for batch in batches for e in batch}

        outcomes = await asyncio.gather(*(take(database, batch) for batch in batches))

        assert sum(accepted for accepted, _, _ in outcomes) == len(distinct)
        assert sum(duplicates for _, duplicates, _ in outcomes) == 20 * 60 - len(distinct)
        expected: dict[tuple[str, ...], tuple[int, int, int]] = {}
        for account in (ADA, BOB):
            rows = [e["data"]["rows"] for e in distinct.values() if e["subject"] == account]
            amount = len(rows) * 500_000 + sum(rows) * 100_000
            expected[account,] = (len(rows), sum(rows), amount)
        assert await sums(database, by=("account",), of=UsageHour) == expected
        await assert_books_agree(database)
        async with database.snapshot() as session:
            journal = (await session.scalars(select(Journal))).one()
            runs = (await session.scalars(select(JournalRange))).all()
        assert journal.received == len(distinct) == sum(r.last - r.first + 1 for r in runs)

    async def test_tiers_are_never_counted_twice(
        self, database: Database, client: AsyncClient
    ) -> None:
        async with database.transaction() as session:
            stored = await store_plan(
                session,
                plan=PlanCreate.model_validate(plan(price((50, "1", "0"), (None, "0", "0")))),
                now=datetime.now(UTC),
            )
        price_id = stored.prices[0].id

        await asyncio.gather(
            *(take(database, [event(price_id=price_id) for _ in range(7)]) for _ in range(20))
        )

        assert await sums(database, by=("account",), of=UsageEvent) == {
            (ADA,): (140, 140, 50 * 10**9)
        }
        await assert_books_agree(database)


class TestAnyOrder:
    @pytest.mark.costly
    @settings(
        max_examples=12,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(data=st.data(), rows=st.lists(st.integers(0, 50), min_size=1, max_size=12))
    async def test_totals_do_not_depend_on_how_events_are_ordered_and_batched(
        self, database: Database, data: st.DataObject, rows: list[int]
    ) -> None:
        account = str(uuid.uuid4())
        async with database.transaction() as session:
            tiers = price((4, "3", "0.5"), (8, "2", "0.5"), (None, "1", "0.5"))
            wanted = PlanCreate.model_validate(plan(tiers))
            stored = await store_plan(session, plan=wanted, now=datetime.now(UTC))
        events = [event(account=account, rows=n, price_id=stored.prices[0].id) for n in rows]
        repeats = data.draw(st.lists(st.sampled_from(events), max_size=6))
        deliveries = data.draw(st.permutations([*events, *repeats]))

        while deliveries:
            size = data.draw(st.integers(1, len(deliveries)))
            await take(database, deliveries[:size])
            deliveries = deliveries[size:]

        per_request = sum(3 if n < 4 else 2 if n < 8 else 1 for n in range(len(rows)))
        amount = per_request * 10**9 + sum(rows) * 5 * 10**8
        found = await sums(database, by=("account",), of=UsageHour)
        assert found[account,] == (len(rows), sum(rows), amount)


class CutShort(Database):
    """A database whose process dies just before or just after a commit."""

    def __init__(self, url: str, *, committed: bool) -> None:
        super().__init__(url)
        self._committed = committed

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with super().transaction() as session:
            yield session
            if not self._committed:
                raise ConnectionAbortedError
        raise ConnectionAbortedError


class TestCutShort:
    @pytest.mark.parametrize("committed", [False, True])
    async def test_a_delivery_is_ingested_completely_or_not_at_all(
        self, database: Database, database_url: str, committed: bool
    ) -> None:
        events = [event(sequence=number) for number in (1, 2)]
        dying = CutShort(database_url, committed=committed)

        with pytest.raises(ConnectionAbortedError):
            await take(dying, events)
        await dying.close()

        written = [Account, EventKey, UsageEvent, UsageHour, UsageMonth, Journal, JournalRange]
        async with database.snapshot() as session:
            counts = [await session.scalar(select(func.count()).select_from(t)) for t in written]
        assert any(counts) == committed
        assert await take(database, events) == ((0, 2, 0) if committed else (2, 0, 0))
        await assert_books_agree(database)


class TestClosing:
    async def test_events_wait_for_a_month_being_closed_and_then_go_to_the_open_one(
        self, database: Database
    ) -> None:
        old = event(time="2026-01-15T00:00:00Z")
        await take(database, [event(time="2026-01-14T00:00:00Z")])

        async with database.transaction() as session:
            january = await session.get(Period, "2026-01", with_for_update=True)
            assert january is not None
            january.closed_at = datetime.now(UTC)
            delivery = asyncio.create_task(take(database, [old]))
            done, _ = await asyncio.wait([delivery], timeout=0.3)
            assert not done

        assert await delivery == (1, 0, 0)
        async with database.snapshot() as session:
            receipt = (
                await session.scalars(select(UsageEvent).where(UsageEvent.id == old["id"]))
            ).one()
        assert (receipt.period, receipt.late) == (f"{datetime.now(UTC):%Y-%m}", True)


async def test_repeats_over_http_are_distinguished_from_new_events(
    client: AsyncClient, service: Headers
) -> None:
    events = [event() for _ in range(5)]

    results = await asyncio.gather(*(deliver(client, service, events[i:]) for i in range(5)))

    assert sum(result["accepted"] for result in results) == 5
    assert sum(result["duplicates"] for result in results) == 10
