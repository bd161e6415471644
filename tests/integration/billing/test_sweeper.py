"""Reservations whose process has ended, and the events that still arrive."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from harness.usage_events import JOURNAL
from services.billing.ledger.sweeper import sweep
from services.billing.models import CreditReservation, UsageEvent
from services.billing.sources import repository
from services.billing.sources.models import Journal
from services.common.db.database import Database
from tests.integration.billing.conftest import OpenApp
from tests.integration.billing.money import (
    NOON,
    credit,
    granted,
    lease,
    money,
    new_id,
    request,
    send_report,
    spent,
    take,
)

OTHER = "0198b000-0000-7000-8000-000000000002"
LOST = NOON + timedelta(minutes=10)


class TestSweep:
    async def count(self, database: Database) -> int:
        async with database.snapshot() as session:
            return await session.scalar(select(func.count()).select_from(CreditReservation)) or 0

    async def test_the_rest_of_a_closed_and_complete_journal_is_reclaimed(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=50))
        await take(prepaid, [spent(20, 2)])
        await send_report(prepaid, 2, closed=True)

        await sweep(prepaid, now=NOON, listening_since=NOON)
        before = await money(prepaid)
        await take(prepaid, [spent(5, 1)])
        await sweep(prepaid, now=NOON, listening_since=NOON)

        assert (before, await money(prepaid)) == ((50, 30), (75, 0))
        assert await self.count(prepaid) == 0

    async def test_a_journal_that_cannot_be_swept_does_not_block_others(
        self, prepaid: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for journal in (JOURNAL, OTHER):
            await granted(prepaid, request(1, journal=journal, minimum=20))
            await send_report(prepaid, 0, closed=True, journal=journal)
        lock_journal = repository.lock_journal

        async def fail_for_one(session: AsyncSession, *, journal: str) -> Journal | None:
            if journal == JOURNAL:
                raise ZeroDivisionError
            return await lock_journal(session, journal=journal)

        with monkeypatch.context() as patch:
            patch.setattr(repository, "lock_journal", fail_for_one)
            await sweep(prepaid, now=NOON, listening_since=NOON)
        one_left = await money(prepaid)
        await sweep(prepaid, now=NOON, listening_since=NOON)

        assert (one_left, await money(prepaid)) == ((80, 20), (100, 0))

    async def test_a_silent_journal_is_reclaimed_after_ten_minutes(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, desired=50))
        await take(prepaid, [spent(20, 1)])

        await sweep(prepaid, now=LOST - timedelta(seconds=1), listening_since=NOON)
        before = await money(prepaid)
        await sweep(prepaid, now=LOST, listening_since=NOON)

        assert (before, await money(prepaid)) == ((50, 30), (80, 0))

    async def test_a_lease_request_counts_as_a_heartbeat(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, desired=50))
        await granted(prepaid, request(2, desired=50), now=NOON + timedelta(minutes=8))

        await sweep(prepaid, now=NOON + timedelta(minutes=17), listening_since=NOON)

        assert await money(prepaid) == (50, 50)

    async def test_after_an_outage_billing_waits_before_it_declares_journals_lost(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=50))
        back = NOON + timedelta(hours=1)

        await sweep(prepaid, now=back, listening_since=back - timedelta(seconds=59))
        before = await money(prepaid)
        await sweep(prepaid, now=back, listening_since=back - timedelta(seconds=60))

        assert (before, await money(prepaid)) == ((50, 50), (100, 0))

    async def test_an_event_after_the_reclaim_is_late_and_may_overdraw(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, minimum=80))
        await sweep(prepaid, now=LOST, listening_since=NOON)
        await granted(prepaid, request(1, journal=OTHER, minimum=90), now=LOST)

        await take(prepaid, [spent(60, 1)], now=LOST)

        assert await money(prepaid) == (-50, 90)
        async with prepaid.snapshot() as session:
            assert await session.scalar(select(UsageEvent.late)) is True

    async def test_a_repeat_after_the_reclaim_costs_nothing(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, minimum=80))
        await take(prepaid, [spent(60, 1, id="same")])
        await sweep(prepaid, now=LOST, listening_since=NOON)

        await take(prepaid, [spent(60, 2, id="same")], now=LOST)

        assert await money(prepaid) == (40, 0)

    async def test_a_lost_process_that_comes_back_continues_counting(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, minimum=80))
        await take(prepaid, [spent(20, 1)])
        await sweep(prepaid, now=LOST, listening_since=NOON)

        # It has spent 30 more that billing has no event of, and needs 5.
        answer = await granted(prepaid, request(2, spent=50, minimum=5), now=LOST)
        held = await money(prepaid)
        await take(prepaid, [spent(30, 2)], now=LOST)

        assert answer == ("ok", 55)
        assert (held, await money(prepaid)) == ((45, 35), (45, 5))

    async def test_a_journal_is_declared_lost_once(self, prepaid: Database) -> None:
        await granted(prepaid, request(1, desired=50))
        for _ in range(2):
            await sweep(prepaid, now=LOST, listening_since=NOON)

        async with prepaid.snapshot() as session:
            journal = await session.get(Journal, JOURNAL)
        assert journal is not None
        assert journal.lost
        await send_report(prepaid, 0, closed=True, now=LOST)
        await sweep(prepaid, now=LOST, listening_since=NOON)
        assert await self.count(prepaid) == 0

    async def test_its_empty_reservations_are_deleted_after_thirty_days(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, minimum=80))
        await take(prepaid, [spent(60, 1)])
        await sweep(prepaid, now=LOST, listening_since=NOON)
        due = NOON + timedelta(days=30)

        await sweep(prepaid, now=due - timedelta(seconds=1), listening_since=NOON)
        before = await self.count(prepaid)
        await sweep(prepaid, now=due, listening_since=NOON)
        after = await self.count(prepaid)
        await take(prepaid, [spent(20, 2)], now=due)
        answer = await granted(prepaid, request(2, spent=80, minimum=5), now=due)

        assert (before, after) == (1, 0)
        assert answer == ("reserved_elsewhere", 0)
        assert await money(prepaid) == (20, 0)
        assert await self.count(prepaid) == 0

    async def test_a_journal_heard_from_meanwhile_keeps_its_reservation(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=50))
        await sweep(prepaid, now=LOST, listening_since=NOON)
        await send_report(prepaid, 0, now=LOST + timedelta(days=20))

        await sweep(prepaid, now=NOON + timedelta(days=30), listening_since=NOON)

        assert await self.count(prepaid) == 1

    async def test_a_closed_journal_gets_neither_a_grant_nor_a_reservation(
        self, prepaid: Database
    ) -> None:
        await granted(prepaid, request(1, desired=40))
        await take(prepaid, [spent(40, 1)])
        await send_report(prepaid, 1, closed=True)
        still_there = await granted(prepaid, request(2, spent=40, minimum=5))
        await sweep(prepaid, now=NOON, listening_since=NOON)

        needing = await granted(prepaid, request(3, spent=40, minimum=5))
        in_the_background = await granted(prepaid, request(4, spent=40, desired=50))

        assert still_there == ("reserved_elsewhere", 40)
        assert needing == in_the_background == ("reserved_elsewhere", 0)
        assert await money(prepaid) == (60, 0)
        assert await self.count(prepaid) == 0

    async def test_many_replicas_sweeping_at_once_reclaim_once(self, prepaid: Database) -> None:
        accounts = [new_id() for _ in range(8)]
        for account in accounts:
            await credit(prepaid, 10, account=account)
        await lease(prepaid, *(request(1, account=account, minimum=10) for account in accounts))

        sweeps = [
            sweep(prepaid, now=LOST, listening_since=NOON, accounts_at_once=3) for _ in range(6)
        ]
        await asyncio.gather(*sweeps)

        for account in accounts:
            assert await money(prepaid, account=account) == (10, 0)

    async def test_the_service_sweeps_while_it_runs(
        self, prepaid: Database, open_app: OpenApp
    ) -> None:
        await granted(prepaid, request(1, desired=50))
        await send_report(prepaid, 0, closed=True)

        async with open_app(sweep_every_s=0.01), asyncio.timeout(30):
            while await self.count(prepaid):
                await asyncio.sleep(0.01)

        assert await money(prepaid) == (100, 0)
