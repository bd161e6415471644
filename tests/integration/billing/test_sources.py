"""Sources: what has arrived of each journal, and what is missing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import AsyncClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession

from harness.issuer import Headers
from harness.usage_events import JOURNAL, deliver, event
from services.billing.sources.service import (
    SourceRead,
    list_sources,
    lock_journals,
    mark_received,
    record_report,
)
from services.common.contracts import SourceReport
from services.common.db.database import Database
from tests.integration.billing.money import granted, request, spent, take

OTHER = "0198b000-0000-7000-8000-000000000002"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


async def send_report(
    client: AsyncClient,
    headers: Headers,
    *,
    last: int,
    closed: bool = False,
    journal: str = JOURNAL,
) -> None:
    said = {"last": last, "closed": closed}
    answer = await client.put(f"/sources/{journal}", headers=headers, json=said)
    assert answer.status_code == 204, answer.text


async def sources(client: AsyncClient, admin: Headers) -> dict[str, dict[str, Any]]:
    answer = await client.get("/sources", headers=admin)
    assert answer.status_code == 200
    return {each["journal"]: each for each in answer.json()["sources"]}


async def source_at(database: Database, now: datetime) -> SourceRead:
    async with database.snapshot() as session:
        (source,) = await list_sources(session, now=now)
    return source


async def receive(session: AsyncSession, arriving: dict[str, set[int]], *, now: datetime) -> None:
    locked = await lock_journals(session, arriving=arriving, now=now)
    await mark_received(session, locked, arriving=arriving, now=now)


class TestState:
    async def test_an_open_journals_unsent_tail_is_lag_not_a_gap(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await deliver(client, service, [event(sequence=1), event(sequence=2)])

        await send_report(client, service, last=5)

        source = (await sources(client, admin))[JOURNAL]
        assert (source["last"], source["received"], source["missing"]) == (5, 2, [])
        assert source["state"] == "open"
        assert source["lag_seconds"] > 0

    async def test_a_closed_journals_tail_is_a_gap(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await deliver(client, service, [event(sequence=1), event(sequence=3)])

        await send_report(client, service, last=5, closed=True)

        source = (await sources(client, admin))[JOURNAL]
        assert (source["state"], source["missing"]) == ("closed", [[2, 2], [4, 5]])

    async def test_a_complete_journal_has_neither_lag_nor_gaps(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await send_report(client, service, last=2, closed=True)
        await deliver(client, service, [event(sequence=2), event(sequence=1)])

        source = (await sources(client, admin))[JOURNAL]

        assert source == {
            "journal": JOURNAL,
            "last": 2,
            "received": 2,
            "missing": [],
            "state": "closed",
            "lag_seconds": 0,
        }

    async def test_a_late_report_takes_nothing_back(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await send_report(client, service, last=5, closed=True)
        await send_report(client, service, last=3)

        source = (await sources(client, admin))[JOURNAL]

        assert (source["last"], source["state"]) == (5, "closed")

    async def test_an_idle_journal_is_listed(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await send_report(client, service, last=0)
        await send_report(client, service, last=0, journal=OTHER)

        found = await sources(client, admin)

        assert set(found) == {JOURNAL, OTHER}
        assert found[JOURNAL]["lag_seconds"] == 0

    async def test_after_ten_silent_minutes_a_journal_is_lost_with_its_known_gap(
        self, database: Database
    ) -> None:
        async with database.transaction() as session:
            await receive(session, {JOURNAL: {1, 2, 4}}, now=NOON)
            said = SourceReport(last=6, closed=False)
            await record_report(session, journal_id=JOURNAL, report=said, now=NOON)

        before = await source_at(database, NOON + timedelta(minutes=9, seconds=59))
        after = await source_at(database, NOON + timedelta(minutes=10))

        assert (before.state, before.missing) == ("open", [(3, 3)])
        assert (after.state, after.missing) == ("lost", [(3, 3), (5, 6)])

    async def test_a_lost_journal_that_is_heard_from_again_is_open(
        self, database: Database
    ) -> None:
        back = NOON + timedelta(hours=1)
        for moment in (NOON, back):
            async with database.transaction() as session:
                await receive(session, {JOURNAL: {1}}, now=moment)

        assert (await source_at(database, back)).state == "open"

    async def test_lag_counts_from_when_it_was_last_complete(self, database: Database) -> None:
        steps = [(1, 0), (1, 60), (3, 90)]  # the report, and after how many seconds
        for last, seconds in steps:
            async with database.transaction() as session:
                now = NOON + timedelta(seconds=seconds)
                await receive(session, {JOURNAL: {1}}, now=now)
                said = SourceReport(last=last, closed=False)
                await record_report(session, journal_id=JOURNAL, report=said, now=now)

        source = await source_at(database, NOON + timedelta(seconds=100))

        assert source.lag_seconds == 10


@pytest.mark.costly
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches=st.lists(st.sets(st.integers(1, 30), min_size=1), max_size=8))
async def test_in_any_order_of_arrival_the_rest_is_missing(
    database: Database, batches: list[set[int]]
) -> None:
    journal = f"0198b000-0000-7000-8000-{abs(hash(str(batches))) % 10**12:012d}"
    for batch in batches:
        async with database.transaction() as session:
            await receive(session, {journal: batch}, now=NOON)

    async with database.snapshot() as session:
        found = [s for s in await list_sources(session, now=NOON) if s.journal == journal]

    arrived = set().union(*batches)
    for source in found:
        missing = {n for first, last in source.missing for n in range(first, last + 1)}
        assert source.received == len(arrived)
        assert missing == set(range(1, max(arrived))) - arrived
    assert len(found) == bool(batches)


@pytest.mark.any_database
class TestErrors:
    @pytest.mark.parametrize(
        "said",
        [
            {},
            {"last": 1},
            {"last": -1, "closed": False},
            {"last": 2**63, "closed": False},
            {"last": "1", "closed": False},
            {"last": 1, "closed": "no"},
            {"last": 1, "closed": False, "surprise": 1},
        ],
    )
    async def test_an_invalid_report_is_422(
        self, client: AsyncClient, service: Headers, said: dict[str, Any]
    ) -> None:
        answer = await client.put(f"/sources/{JOURNAL}", headers=service, json=said)

        assert answer.status_code == 422

    async def test_an_invalid_journal_id_is_422(
        self, client: AsyncClient, service: Headers
    ) -> None:
        said = {"last": 1, "closed": False}

        answer = await client.put("/sources/somewhere", headers=service, json=said)

        assert answer.status_code == 422

    async def test_each_needs_its_own_scope(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        path = f"/sources/{JOURNAL}"

        assert (await client.put(path, content=b"{")).status_code == 401
        assert (await client.put(path, headers=admin, content=b"{")).status_code == 403
        assert (await client.get("/sources")).status_code == 401
        assert (await client.get("/sources", headers=service)).status_code == 403


class TestReservations:
    async def test_the_credit_of_a_closed_and_complete_journal_returns_at_once(
        self, prepaid: Database, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        await granted(prepaid, request(1, desired=50))
        await take(prepaid, [spent(20, 1)])

        await send_report(client, service, last=2, closed=True)
        incomplete = (await client.get("/balance", headers=ada)).json()
        await take(prepaid, [spent(5, 2)])
        await send_report(client, service, last=2, closed=True)
        complete = (await client.get("/balance", headers=ada)).json()

        assert incomplete["held"] == "0.00000003"
        assert (complete["held"], complete["available"]) == ("0", "0.000000075")

    async def test_the_credit_of_a_process_without_events_returns_at_once(
        self, prepaid: Database, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        await granted(prepaid, request(1, desired=50))

        await send_report(client, service, last=0, closed=True)

        balance = (await client.get("/balance", headers=ada)).json()
        assert (balance["held"], balance["available"]) == ("0", "0.0000001")
