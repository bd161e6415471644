"""Sums beyond 64 bits are charged, leased, shown and verified to the last 10⁻⁹."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import select, update

from harness.issuer import Headers
from harness.plans import plan, price
from harness.usage_events import ADA, BOB, assign_plan, deliver, event, total, used
from services.billing.ledger.sweeper import sweep
from services.billing.models import (
    Account,
    Credit,
    CreditReservation,
    UsageEvent,
    UsageHour,
    UsageMonth,
)
from services.billing.sources.models import Journal, JournalRange
from services.billing.verify import verify
from services.common.contracts import MAX_SUM, format_amount, parse_amount
from services.common.db.database import Database
from tests.integration.billing.money import (
    NOON,
    credit,
    granted,
    lease,
    money,
    new_id,
    request,
    spent,
    store_prepaid,
    take,
)

OTHER = "0198b000-0000-7000-8000-000000000002"
MOST_ROWS = 2**31 - 1
BILLION = 10**18
"""A billion units."""


class TestPostpaid:
    async def test_a_month_beyond_64_bits_is_charged_and_shown(
        self, client: AsyncClient, service: Headers, admin: Headers, ada: Headers
    ) -> None:
        await assign_plan(client, admin, plan(price((None, "9000000000.000000001", "0"))))

        results = [await deliver(client, service, [event(), event()]) for _ in range(5)]

        assert [result["accepted"] for result in results] == [2] * 5
        assert await total(client, ada) == used(10, 10, "90000000000.00000001")

    async def test_the_most_expensive_possible_event_is_charged(
        self, client: AsyncClient, service: Headers, admin: Headers, ada: Headers
    ) -> None:
        await assign_plan(client, admin, plan(price((None, "1000000000000", "1000000000000"))))

        result = await deliver(client, service, [event(id=f"e{n}", rows=MOST_ROWS) for n in "ab"])

        assert (result["accepted"], result["rejected"]) == (2, [])
        amount = format_amount(2**31 * 10**21)
        receipt = await client.get("/usage/events/ea", headers=ada)
        assert receipt.json()["amount"] == amount
        whole = format_amount(2 * 2**31 * 10**21)
        assert await total(client, ada) == used(2, 2 * MOST_ROWS, whole)

    @pytest.mark.parametrize("group_by", ["hour", "day", "month", "model"])
    async def test_usage_of_part_of_an_hour_is_exact(
        self, client: AsyncClient, service: Headers, admin: Headers, ada: Headers, group_by: str
    ) -> None:
        await assign_plan(client, admin, plan(price((None, "9000000000.000000001", "0"))))
        times = [f"2026-11-0{day}T12:{minute}:00Z" for day in (1, 2) for minute in (10, 20, 40)]
        book = (await client.get("/plans", headers=ada)).json()["plans"]
        price_id = book[1]["prices"][0]["id"]
        await deliver(client, service, [event(time=each, price_id=price_id) for each in times])

        answer = await client.get(
            "/usage",
            headers=ada,
            params={
                "from": "2026-11-01T12:15:00Z",
                "to": "2026-11-02T12:30:00Z",
                "group_by": group_by,
            },
        )

        usage = answer.json()
        assert usage["total"] == used(4, 4, "36000000000.000000004")
        buckets = [parse_amount(bucket["amount"]) for bucket in usage["buckets"]]
        assert sum(buckets) == parse_amount(usage["total"]["amount"])

    async def test_an_event_beyond_the_largest_sum_is_rejected(
        self, client: AsyncClient, database: Database, service: Headers
    ) -> None:
        await deliver(client, service, [event()])
        async with database.transaction() as session:
            await session.execute(update(UsageMonth).values(amount_high=2**61))

        result = await deliver(client, service, [event()])

        assert [each["reason"] for each in result["rejected"]] == ["the amount is too large"]


class TestPrepaid:
    @pytest.fixture
    async def rich(self, database: Database) -> AsyncIterator[Database]:
        """A database where Ada's credit exceeds 64 bits; at the end the books agree."""
        await store_prepaid(database)
        for _ in range(4):
            await credit(database, 1000 * BILLION)
        yield database
        assert await verify(database) == []

    async def test_credit_beyond_64_bits_is_granted_spent_and_given_back(
        self, rich: Database
    ) -> None:
        status, amount = await granted(
            rich, request(1, minimum=1500 * BILLION, desired=3000 * BILLION)
        )
        assert (status, amount) == ("ok", 3000 * BILLION)
        assert await money(rich) == (1000 * BILLION, 3000 * BILLION)

        await take(rich, [spent(7, 1)])
        released = await granted(rich, request(2, spent=7, release=True))

        assert released == ("ok", 7)
        assert await money(rich) == (4000 * BILLION - 7, 0)

    async def test_each_of_two_processes_learns_what_the_other_reserved(
        self, rich: Database
    ) -> None:
        first = await granted(rich, request(1, minimum=3999 * BILLION))
        other = request(1, journal=OTHER, minimum=2 * BILLION)
        second = await granted(rich, other)
        third = await granted(rich, request(2, journal=OTHER, minimum=4001 * BILLION))

        assert first == ("ok", 3999 * BILLION)
        assert second == ("reserved_elsewhere", 0)
        assert third == ("no_credit", 0)

    async def test_a_lost_process_credit_is_reclaimed(self, rich: Database) -> None:
        await granted(rich, request(1, desired=2000 * BILLION))

        await sweep(rich, now=NOON + timedelta(minutes=10), listening_since=NOON)

        assert await money(rich) == (4000 * BILLION, 0)

    async def test_an_account_with_such_sums_does_not_affect_others_in_the_call(
        self, rich: Database
    ) -> None:
        await credit(rich, 5, account=BOB)
        await granted(rich, request(1, desired=2000 * BILLION))
        await granted(rich, request(1, journal=OTHER, desired=1999 * BILLION))

        terms = await lease(
            rich,
            request(2, minimum=4001 * BILLION),
            request(1, account=BOB, minimum=5),
            request(2, journal=OTHER, spent=MAX_SUM, minimum=MAX_SUM, desired=MAX_SUM),
            request(1, account=new_id(), minimum=MAX_SUM),
        )

        assert [each.status for each in terms] == ["no_credit", "ok", "no_credit", "no_credit"]
        assert terms[1].granted == "0.000000005"

    async def test_the_price_of_a_request_may_exceed_64_bits(
        self, client: AsyncClient, admin: Headers, rich: Database
    ) -> None:
        """It is settled and charged, and what a repeat spent goes back."""
        dear = plan(price((None, "900000000000", "1")), billing="prepaid", name="Dear")
        plan_id = await assign_plan(client, admin, dear)
        stored = (await client.get("/plans", headers=admin)).json()["plans"]
        (found,) = [each for each in stored if each["id"] == plan_id]
        price_id = found["prices"][0]["id"]
        cost = 900 * BILLION + 10**9
        await granted(rich, request(1, minimum=2 * cost))

        await take(
            rich,
            [
                spent(1, 1, id="one", price_id=price_id),
                spent(1, 2, id="one", price_id=price_id),
            ],
        )

        assert await money(rich) == (4000 * BILLION - cost, 0)


class TestVerify:
    @pytest.fixture
    async def books(self, database: Database) -> Database:
        """Return data of every kind that can be verified, of two accounts."""
        await store_prepaid(database)
        for account in (ADA, BOB):
            await credit(database, 100, account=account)
            await granted(database, request(1, desired=50, account=account))
            await take(database, [spent(20, 1 + (account == BOB), account=account)])
        await take(database, [event(time=NOON, rows=3, sequence=9)])
        return database

    @pytest.mark.costly
    @pytest.mark.parametrize(
        "columns",
        [
            (Account.available_high, Account.available_low),
            (
                CreditReservation.granted_high,
                CreditReservation.granted_low,
                CreditReservation.settled_high,
                CreditReservation.settled_low,
                CreditReservation.returned_high,
                CreditReservation.returned_low,
            ),
            (Credit.amount_high, Credit.amount_low),
            (UsageEvent.amount_high, UsageEvent.amount_low, UsageEvent.rows),
            (UsageHour.amount_high, UsageHour.amount_low, UsageHour.rows, UsageHour.requests),
            (UsageMonth.amount_high, UsageMonth.amount_low, UsageMonth.rows, UsageMonth.requests),
            (Journal.received, Journal.highest),
            (JournalRange.last,),
        ],
        ids=lambda columns: columns[0].class_.__name__,
    )
    async def test_it_reads_any_value_and_names_the_difference(
        self, books: Database, columns: tuple[Any, ...]
    ) -> None:
        """One table after the other, in the same books, which take longer to write than to read."""
        for column in columns:
            keys = column.class_.__table__.primary_key.columns
            async with books.transaction() as session:
                before = (await session.execute(select(*keys, column))).all()

            for value in (-(2**63), -1, 0, 1, 2**63 - 1):
                async with books.transaction() as session:
                    as_it_was = set(await session.scalars(select(column)))
                    await session.execute(update(column.class_).values({column: value}))

                differences = await verify(books)

                assert bool(differences) == (as_it_was != {value}) or value == 0, differences

            async with books.transaction() as session:
                for *key, value in before:
                    is_row = [each == its for each, its in zip(keys, key, strict=True)]
                    await session.execute(
                        update(column.class_).where(*is_row).values({column: value})
                    )
            assert await verify(books) == []
