"""Archiving a month: nothing is lost or counted twice, whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from prometheus_client import CollectorRegistry
from sqlalchemy import select, update

from harness.issuer import Headers
from harness.usage_events import BOB, Json
from services.billing.archives import parquet, service
from services.billing.archives.errors import ArchiveBusy, ArchiveUnreachable, NotArchivable
from services.billing.archives.models import Archive, ArchivePart
from services.billing.archives.reading import Archives
from services.billing.archives.retention import ArchiveMetrics, retain
from services.billing.corrections import recalls
from services.billing.models import Account, EventKey, UsageEvent
from services.billing.verify import verify
from services.common.db.database import Database
from tests.integration.billing.archived import archive_month, archive_until, count
from tests.integration.billing.months import (
    AFTER,
    PERIOD,
    close,
    use,
)
from tests.integration.billing.tampering import cells, unnoticed_changes
from tests.integration.billing.test_recalls import store_recall

LATER = datetime(2026, 12, 10, 12, tzinfo=UTC)
DECEMBER = datetime(2027, 1, 10, tzinfo=UTC)


@pytest.mark.costly
class TestKills:
    async def test_a_run_that_is_killed_at_any_step_continues_when_repeated(
        self,
        client: AsyncClient,
        ada: Headers,
        database: Database,
        october: list[Json],
        archives: Archives,
    ) -> None:
        page = (await client.get("/usage/events", headers=ada)).json()

        for step in ("written", "compared", "recorded", "deleted", "deleted"):
            await archive_until(database, archives, step)

            assert await verify(database, archives) == [], step
            assert (await client.get("/usage/events", headers=ada)).json() == page, step
        await archive_month(database, archives)
        again = await archive_month(database, archives, now=LATER)

        assert again.requests == 11
        assert await count(database, UsageEvent, UsageEvent.period == PERIOD) == 0
        assert await verify(database, archives) == []
        folder = Path(archives.store.url) / "usage" / PERIOD
        assert len(list(folder.iterdir())) > again.files  # those of killed runs stay

    async def test_of_two_archivers_at_once_one_records_its_files(
        self,
        database: Database,
        october: list[Json],
        archives: Archives,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        @asynccontextmanager
        async def unlocked(database: Database) -> AsyncIterator[None]:
            yield

        monkeypatch.setattr(service, "_only_one", unlocked)

        one, other = await asyncio.gather(
            archive_month(database, archives), archive_month(database, archives)
        )

        assert one == other
        assert await count(database, Archive) == 1
        assert await count(database, ArchivePart) == one.files
        assert await verify(database, archives) == []

    async def test_on_a_server_only_one_archiver_works(
        self,
        database: Database,
        october: list[Json],
        archives: Archives,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if database.engine.dialect.name == "sqlite":
            return  # it serves one machine, and has no such lock
        async with service._only_one(database):
            with monkeypatch.context() as patch:
                patch.setattr(service, "LOCK_WAIT_S", 0)
                with pytest.raises(ArchiveBusy):
                    await archive_month(database, archives)
        await archive_month(database, archives)


class TestRefusals:
    @pytest.mark.parametrize(
        ("period", "options", "reason"),
        [
            (PERIOD, {"now": datetime(2026, 10, 31, 23, 59, tzinfo=UTC)}, "not over"),
            ("2026-11", {"now": LATER}, "not closed"),
            ("1999-01", {}, "not closed"),
            (PERIOD, {"keep_months": 2, "now": LATER}, "BILLING_RETENTION_MONTHS is 2"),
        ],
    )
    async def test_a_month_that_must_stay_is_refused(
        self,
        database: Database,
        october: list[Json],
        archives: Archives,
        period: str,
        options: dict[str, Any],
        reason: str,
    ) -> None:
        await use(database, 1, time=AFTER)

        with pytest.raises(NotArchivable, match=reason):
            await archive_month(database, archives, period, **options)

        assert await count(database, Archive) == 0
        assert await count(database, UsageEvent) == 13

    async def test_a_month_with_an_account_without_an_invoice_is_refused(
        self, database: Database, archives: Archives
    ) -> None:
        await use(database, 1)
        async with database.transaction() as session:
            await session.execute(update(Account).values(currency="XYZ"))
        await close(database)

        with pytest.raises(NotArchivable, match="Not all invoices"):
            await archive_month(database, archives)

    @pytest.mark.costly
    async def test_a_month_with_recalled_events_to_be_taken_back_is_refused(
        self, database: Database, archives: Archives
    ) -> None:
        await store_recall(database)
        await use(database, 1)
        await close(database)

        with pytest.raises(NotArchivable, match="being taken back"):
            await archive_month(database, archives)
        await recalls.apply(database, archives, now=AFTER)
        await archive_month(database, archives)

        assert await verify(database, archives) == []

    @pytest.mark.costly
    async def test_events_that_differ_from_the_invoices_stay(
        self, database: Database, october: list[Json], archives: Archives
    ) -> None:
        changed = update(UsageEvent).where(UsageEvent.account == BOB)
        async with database.transaction() as session:
            await session.execute(changed.values(amount_low=UsageEvent.amount_low + 1))

        with pytest.raises(NotArchivable, match=f"account {BOB}, model wine"):
            await archive_month(database, archives)

        assert await count(database, Archive) == 0
        assert await count(database, UsageEvent) == 12


@pytest.mark.costly
class TestVerify:
    async def test_any_changed_cell_of_what_is_recorded_is_found(
        self, database: Database, october: list[Json], archives: Archives
    ) -> None:
        await archive_month(database, archives)

        unnoticed = await unnoticed_changes(
            database, cells("archives", "archive_parts"), archives=archives
        )

        # When something happened is for people; a file's name is found because it is then missing.
        assert unnoticed == [("archives", "archived_at"), ("archives", "dropped_at")]

    async def test_an_archived_event_without_its_identity_is_found(
        self, database: Database, october: list[Json], archives: Archives
    ) -> None:
        await archive_month(database, archives)
        async with database.transaction() as session:
            key = (october[5]["id"], october[5]["source"])
            await session.delete(await session.get_one(EventKey, key))

        found = await verify(database, archives)

        assert f"usage_event_keys: account {BOB}: 1 archived events have no identity" in found


class TestFailures:
    @pytest.mark.costly
    async def test_a_full_disk_changes_nothing_and_is_reported(
        self,
        client: AsyncClient,
        ada: Headers,
        october: list[Json],
        database: Database,
        archives: Archives,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise OSError("No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(parquet.PartWriter, "write", fail)
            with pytest.raises(ArchiveUnreachable):
                await archive_month(database, archives)
        assert await count(database, Archive) == 0
        assert await count(database, UsageEvent) == 12
        await archive_month(database, archives)
        monkeypatch.setattr(parquet, "read", fail)

        answer = await client.get("/usage/events", headers=ada)

        assert answer.status_code == 503
        assert "No space" not in answer.text


class TestRetention:
    @pytest.mark.costly
    async def test_months_are_archived_once_they_have_been_kept(
        self, app: FastAPI, database: Database, october: list[Json], archives: Archives
    ) -> None:
        await retain(database, archives.store, keep_months=2, now=LATER)
        async with database.snapshot() as session:
            kept = list(await session.scalars(select(Archive.period)))
        await retain(database, archives.store, keep_months=2, now=DECEMBER)
        async with database.snapshot() as session:
            later = list(await session.scalars(select(Archive.period)))

        assert (kept, later) == (["2026-09"], ["2026-09", PERIOD])
        registry = CollectorRegistry()
        await ArchiveMetrics(registry).measure(database)
        assert registry.get_sample_value("tollgate_billing_archived_months") == 2
        assert (registry.get_sample_value("tollgate_billing_archived_bytes") or 0) > 1000
        assert await verify(database, archives) == []
