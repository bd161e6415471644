"""Recalls: every event of a version is taken back once, whenever it arrives."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from httpx import AsyncClient

from harness.issuer import Headers, Issuer
from harness.usage_events import ADA, BOB, Json, event
from harness.waiting import eventually_async
from services.billing.corrections import recalls, reversing, selecting
from services.billing.corrections.recalls import RecallCreate
from services.billing.verify import verify
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from tests.integration.billing.conftest import OpenApp, browse
from tests.integration.billing.money import NOON, credit, money, spent, store_prepaid, take
from tests.integration.billing.months import (
    BOOKS,
    DURING,
    close,
    deliver,
    only_invoice,
    preview,
    read_invoice,
    store_profile,
    use,
)
from tests.integration.billing.statements import accesses, recorded
from tests.integration.billing.tampering import changed_cell

VERSION = "20261122t000000z-0a1b2c3d"
GOOD = "20261001t000000z-ffffffff"
RECALL = {"model": "wine", "version": VERSION, "reason": "Wrong labels."}


async def store_recall(database: Database) -> None:
    body = RecallCreate.model_validate(RECALL)
    await in_transaction(
        database, lambda session: recalls.create(session, recall=body, by="a test", now=DURING)
    )


async def recall(database: Database) -> None:
    await store_recall(database)
    await recalls.apply(database, now=DURING)


async def use_another_version(database: Database, rows: int) -> None:
    good = event(rows=rows, time=DURING)
    good["data"]["version"] = GOOD
    await deliver(database, [good], now=DURING)


class TestPrepaid:
    @pytest.fixture
    async def books(self, database: Database) -> Database:
        await store_prepaid(database)
        await credit(database, 100)
        return database

    async def test_charges_return_to_the_balance(self, books: Database) -> None:
        other = spent(30, 2)
        other["data"]["version"] = GOOD
        await take(books, [spent(20, 1), other])
        assert await money(books) == (50, 0)

        await recall(books)

        assert await money(books) == (70, 0)
        assert await verify(books) == []

    async def test_later_events_return_too_and_each_once(self, books: Database) -> None:
        await take(books, [early := spent(20, 1)])
        await recall(books)

        await take(books, [spent(10, 2), early])
        assert await money(books) == (90, 0)
        for _ in range(3):
            await recalls.apply(books, now=DURING)

        assert await money(books) == (100, 0)
        assert await verify(books) == []

    @pytest.mark.costly
    async def test_events_that_arrive_meanwhile_are_taken_back_once(self, books: Database) -> None:
        batches = [[spent(1, 10 * n + i) for i in range(1, 6)] for n in range(6)]

        await asyncio.gather(recall(books), *(take(books, batch) for batch in batches))
        await asyncio.gather(*(recalls.apply(books, now=DURING) for _ in range(3)))

        assert await money(books) == (100, 0)
        assert await verify(books) == []

    async def test_an_interrupted_one_continues(
        self, books: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recalls, "EVENTS_AT_ONCE", 2)
        await take(books, [spent(1, n) for n in range(1, 8)])
        await store_recall(books)
        round_ = asyncio.create_task(recalls.apply(books, now=DURING))
        await asyncio.sleep(0)
        round_.cancel()
        await asyncio.gather(round_, return_exceptions=True)

        await recalls.apply(books, now=DURING)

        assert await money(books) == (100, 0)
        assert await verify(books) == []


class TestManyEvents:
    @pytest.fixture
    async def books(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
        monkeypatch.setattr(recalls, "EVENTS_AT_ONCE", 2)
        monkeypatch.setattr(recalls, "_STEPS_AT_ONCE", 1)
        monkeypatch.setattr(selecting, "STRETCH_EVENTS", 3)
        await store_prepaid(database)
        for account in (ADA, BOB):
            await credit(database, 100, account=account)
        return database

    @pytest.mark.costly
    async def test_they_are_read_from_where_the_last_step_was(
        self, books: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events = [spent(1, n, time=NOON - timedelta(minutes=n % 4)) for n in range(1, 20)]
        for n, each in enumerate(events):
            if n % 5:
                each["data"]["version"] = GOOD
        await take(books, events)
        with recorded(books) as statements:
            await recall(books)

        assert await money(books) == (85, 0)
        assert await verify(books) == []
        reads = [each for each in statements if "usage_events.account = " in each.sql]
        assert len(reads) == 2 * (len(events) // 3 + 1)  # the end of a stretch, then its events

    @pytest.mark.costly
    async def test_a_large_account_does_not_delay_others(
        self, books: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await take(books, [spent(1, n) for n in range(1, 20)])
        await take(books, [spent(5, 20, account=BOB)])
        await store_recall(books)
        monkeypatch.setattr(recalls, "_ROUNDS", 1)

        await recalls.apply(books, now=DURING)

        assert await money(books, account=BOB) == (100, 0)
        assert await money(books) == (83, 0)
        for _ in range(10):
            await recalls.apply(books, now=DURING)
        assert await money(books) == (100, 0)
        assert await verify(books) == []

    async def test_one_that_fails_does_not_stop_others(
        self, books: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await take(books, [spent(20, 1), spent(5, 2, account=BOB)])

        async def fail_for_ada(*arguments: Any, account: str, **options: Any) -> int:
            if account == ADA:
                raise ValueError
            return await reversing.reverse(*arguments, account=account, **options)

        with monkeypatch.context() as patch:
            patch.setattr(recalls, "reverse", fail_for_ada)
            await recall(books)
            await take(books, [spent(1, 3), spent(1, 4, account=BOB)])
            await recalls.apply(books, now=DURING)
        assert await money(books) == (79, 0)
        assert await money(books, account=BOB) == (100, 0)

        await recalls.apply(books, now=DURING)

        assert await money(books) == (100, 0)
        assert await verify(books) == []

    async def test_a_finished_one_stays_finished(self, books: Database) -> None:
        await take(books, [spent(20, 1)])
        await recall(books)
        async with books.snapshot() as session:
            [before] = (await recalls.list_recalls(session)).recalls

        await recalls.apply(books, now=DURING + timedelta(days=1))

        async with books.snapshot() as session:
            assert (await recalls.list_recalls(session)).recalls == [before]
        assert before.finished_at == DURING

    async def test_the_index_has_their_order(self, database: Database) -> None:
        for account in (ADA, BOB):
            await use(database, *range(1, 1001), account=account)
        window = selecting.Window(ADA, "wine", VERSION)
        with recorded(database) as statements:
            async with database.snapshot() as session:
                events, reached = await selecting.list_next(session, window, after=None, limit=10)
                statements.clear()
                await selecting.list_next(session, window, after=reached, limit=10)

        assert len(events) == 10
        for access in await accesses(database, statements):
            assert (access.key, access.kind) == ("ix_usage_events_account_time", "range")
            assert "filesort" not in access.extra
            assert "temporary" not in access.extra


class TestPostpaid:
    async def test_they_reduce_the_invoice_of_the_month(self, database: Database) -> None:
        await use(database, 100_000)
        await use_another_version(database, 200_000)
        await recall(database)

        before = await preview(database)
        invoice = await only_invoice(database)

        assert invoice.subtotal == "30"
        [given] = invoice.credits
        assert given.amount == "10"
        assert given.reason == f"Recall of wine {VERSION}: Wrong labels."
        assert invoice.total == "20"
        assert before.total == invoice.total
        assert await verify(database) == []

    @pytest.mark.costly
    async def test_those_of_a_closed_month_reduce_the_next_invoice(
        self, database: Database
    ) -> None:
        await use(database, 100_000)
        assert (await only_invoice(database)).total == "10"
        await recall(database)
        nov = DURING.replace(month=11)
        good = event(rows=50_000, time=nov)
        good["data"]["version"] = GOOD
        await deliver(database, [good], now=nov)
        dec = nov.replace(month=12)
        good = event(rows=90_000, time=dec)
        good["data"]["version"] = GOOD
        await deliver(database, [good], now=dec)

        totals = []
        for period in ("2026-11", "2026-12"):
            run = await close(database, period, now=dec.replace(year=2027, month=1))
            invoice = await read_invoice(database, run.invoices[0].id)
            totals.append((invoice.credits[0].amount, invoice.total))

        assert totals == [("5", "0"), ("5", "4")]
        assert await verify(database) == []

    async def test_tax_is_given_back_too(self, database: Database) -> None:
        await store_profile(database)
        await use(database, 100_000)
        await use_another_version(database, 100_000)
        await recall(database)

        invoice = await only_invoice(database, books=BOOKS)

        assert (invoice.subtotal, invoice.tax.amount) == ("20", "3.8")
        assert (invoice.credits[0].amount, invoice.total) == ("11.9", "11.9")
        assert await verify(database) == []

    async def test_many_small_charges_are_rounded_together(self, database: Database) -> None:
        await use(database, *[1] * 20)
        await recall(database)
        await use(database, *[1] * 20)
        await recalls.apply(database, now=DURING)

        invoice = await only_invoice(database)

        assert invoice.lines[0].amount == "0.024"
        assert [each.amount for each in invoice.credits] == ["0.02"]
        assert invoice.total == "0"


@pytest.mark.parametrize("column", ["amount", "amount_high", "entry_id", "cause", "account"])
@pytest.mark.any_database
async def test_a_changed_reversal_is_found(database: Database, column: str) -> None:
    await use(database, 100)
    await recall(database)

    async with changed_cell(database, "event_reversals", column):
        differences = await verify(database)

    assert any(each.startswith("corrections: ") for each in differences)
    assert await verify(database) == []


class TestRequests:
    async def test_a_repeat_returns_the_first_recall(
        self, client: AsyncClient, admin: Headers
    ) -> None:
        headers = {**admin, "Idempotency-Key": "one"}

        first = await client.post("/recalls", headers=headers, json=RECALL)
        again = await client.post("/recalls", headers=headers, json=RECALL)
        other = await client.post(
            "/recalls", headers={**admin, "Idempotency-Key": "two"}, json=RECALL
        )

        assert (first.status_code, again.status_code, other.status_code) == (201, 201, 409)
        assert first.json() == again.json()
        listed = (await client.get("/recalls", headers=admin)).json()["recalls"]
        assert [each["id"] for each in listed] == [first.json()["id"]]

    @pytest.mark.any_database
    @pytest.mark.parametrize(
        "body", [{}, RECALL | {"reason": ""}, RECALL | {"model": "é"}, RECALL | {"x": 1}]
    )
    async def test_a_wrong_one_is_refused(
        self, client: AsyncClient, admin: Headers, body: Json
    ) -> None:
        headers = {**admin, "Idempotency-Key": "one"}

        response = await client.post("/recalls", headers=headers, json=body)

        assert response.status_code == 422
        assert (await client.get("/recalls", headers=admin)).json() == {"recalls": []}

    @pytest.mark.any_database
    async def test_only_an_administrator_may(self, client: AsyncClient, issuer: Issuer) -> None:
        bob = issuer.headers("usage:read", "billing:manage", account=BOB)

        response = await client.post(
            "/recalls", headers={**bob, "Idempotency-Key": "one"}, json=RECALL
        )

        assert response.status_code == 403


async def test_the_service_takes_back_by_itself(
    database: Database, open_app: OpenApp, admin: Headers
) -> None:
    await store_prepaid(database)
    await credit(database, 100)
    await take(database, [spent(20, 1)])

    async with open_app(sweep_every_s=3600, recall_every_s=0.05) as app, browse(app) as client:
        headers = {**admin, "Idempotency-Key": "one"}
        await client.post("/recalls", headers=headers, json=RECALL)
        await eventually_async(lambda: has_balance(client, admin, "0.0000001"))


async def has_balance(client: AsyncClient, admin: Headers, balance: str) -> bool:
    response = await client.get("/balance", params={"account": ADA}, headers=admin)
    return bool(response.json()["balance"] == balance)
