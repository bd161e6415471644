"""Which events are the same, which month they are billed in, which sequences have arrived."""

from datetime import UTC, datetime
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import select

from harness.issuer import Headers
from harness.usage_events import ADA, BOB, JOURNAL, deliver, event, total, used
from services.billing.models import EventConflict, EventKey, Period, UsageEvent
from services.common.db.database import Database

pytestmark = pytest.mark.any_database


async def list_conflicts(client: AsyncClient, admin: Headers, **query: Any) -> dict[str, Any]:
    response = await client.get("/events/conflicts", params=query, headers=admin)
    page: dict[str, Any] = response.json()
    return page


class TestIdentity:
    async def test_a_repeat_is_a_duplicate(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        first = event(rows=2)
        later = first | {"time": datetime.now(UTC).isoformat(), "sequence": "9"}
        await deliver(client, service, [first])

        result = await deliver(client, service, [first, later])

        assert result == {"accepted": 0, "duplicates": 2, "conflicts": 0, "rejected": []}
        assert await total(client, ada) == used(1, 2, "0.0007")

    async def test_a_repeat_within_a_batch_is_a_duplicate(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        first = event()

        result = await deliver(client, service, [first, event(), first])

        assert (result["accepted"], result["duplicates"]) == (2, 1)
        assert (await total(client, ada))["requests"] == 2

    @pytest.mark.parametrize(
        "change", [{"subject": BOB}, {"data": {"model": "iris"}}, {"data": {"rows": 9}}]
    )
    @pytest.mark.parametrize("together", [True, False])
    async def test_a_repeat_with_another_payload_is_a_conflict_and_the_first_counts(
        self,
        client: AsyncClient,
        service: Headers,
        ada: Headers,
        database: Database,
        change: dict[str, Any],
        together: bool,
    ) -> None:
        first = event(rows=2)
        other = first | change | {"data": first["data"] | change.get("data", {})}
        deliveries = [[first, other]] if together else [[first], [other], [other]]

        results = [await deliver(client, service, events) for events in deliveries]

        assert sum(result["accepted"] for result in results) == 1
        assert sum(result["conflicts"] for result in results) == (1 if together else 2)
        assert await total(client, ada) == used(1, 2, "0.0007")
        async with database.snapshot() as session:
            listed = (await session.scalars(select(EventConflict))).one()
        assert (listed.id, listed.account) == (first["id"], other["subject"])

    async def test_conflicts_are_listed_for_administrators_page_by_page(
        self, client: AsyncClient, service: Headers, admin: Headers, ada: Headers
    ) -> None:
        first, second = event(rows=1), event(rows=1)
        repeats = [
            one | {"data": one["data"] | {"rows": rows}}
            for one in (first, second)
            for rows in (2, 3)
        ]
        await deliver(client, service, [first, second, *repeats, *repeats])

        pages = [await list_conflicts(client, admin, limit=3)]
        pages.append(await list_conflicts(client, admin, limit=3, cursor=pages[0]["next_cursor"]))

        listed = [conflict for page in pages for conflict in page["conflicts"]]
        assert [len(page["conflicts"]) for page in pages] == [3, 1]
        assert pages[1]["next_cursor"] is None
        assert {(each["id"], each["rows"]) for each in listed} == {
            (each["id"], each["data"]["rows"]) for each in repeats
        }
        assert {(each["source"], each["account"]) for each in listed} == {("/inference", ADA)}
        refused = await client.get("/events/conflicts", headers=ada)
        bad = await client.get("/events/conflicts", params={"cursor": "zz"}, headers=admin)
        assert (refused.status_code, bad.status_code) == (403, 422)

    async def test_the_same_id_from_another_source_is_another_event(
        self, client: AsyncClient, service: Headers
    ) -> None:
        first = event()

        result = await deliver(client, service, [first, first | {"source": "/elsewhere"}])

        assert result["accepted"] == 2

    async def test_ids_are_compared_byte_for_byte(
        self, client: AsyncClient, service: Headers, database: Database
    ) -> None:
        ids = ["evt-a", "evt-A", "EVT-a", "evt-é", "evt-a ", "evt-a\t", "evt-ａ", "evt-e"]

        result = await deliver(client, service, [event(id=each) for each in ids])
        again = await deliver(client, service, [event(id=each) for each in ids])

        assert (result["accepted"], len(result["rejected"])) == (4, 4)
        assert (again["duplicates"], len(again["rejected"])) == (4, 4)
        async with database.snapshot() as session:
            stored = set(await session.scalars(select(EventKey.id)))
        assert stored == {"evt-a", "evt-A", "EVT-a", "evt-e"}

    async def test_an_id_of_64_characters_is_stored_completely(
        self, client: AsyncClient, service: Headers
    ) -> None:
        ids = ["x" * 63 + "1", "x" * 63 + "2"]

        result = await deliver(client, service, [event(id=each) for each in ids])

        assert result["accepted"] == 2

    async def test_a_rejected_event_can_be_accepted_later(
        self, client: AsyncClient, service: Headers
    ) -> None:
        unpriced = event(price_id="unknown", id="again")
        await deliver(client, service, [unpriced])

        result = await deliver(client, service, [unpriced, event(id="again")])

        assert (result["accepted"], len(result["rejected"])) == (1, 1)

    async def test_a_repeat_with_a_new_sequence_is_found_among_new_events(
        self, client: AsyncClient, service: Headers, ada: Headers, admin: Headers
    ) -> None:
        first = event(rows=2, sequence=1)
        await deliver(client, service, [first])

        result = await deliver(
            client, service, [event(sequence=2), first | {"sequence": "3"}, event(sequence=4)]
        )

        assert (result["accepted"], result["duplicates"]) == (2, 1)
        assert (await total(client, ada))["requests"] == 3
        (source,) = (await client.get("/sources", headers=admin)).json()["sources"]
        assert (source["received"], source["missing"]) == (4, [])

    @pytest.mark.parametrize("rows", [2, 9])
    async def test_a_repeat_that_could_not_be_charged_is_still_a_duplicate(
        self, client: AsyncClient, service: Headers, rows: int
    ) -> None:
        first = event(rows=2, sequence=1)
        await deliver(client, service, [first])
        unpriced = first["data"] | {"rows": rows, "price_id": "unknown"}

        result = await deliver(client, service, [first | {"sequence": "2", "data": unpriced}])

        assert result["rejected"] == []
        assert (result["duplicates"], result["conflicts"]) == ((1, 0) if rows == 2 else (0, 1))

    async def test_a_redelivery_followed_by_new_events_is_recognised(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        events = [event(sequence=number) for number in range(1, 7)]
        await deliver(client, service, events[:4])

        result = await deliver(client, service, events)

        assert (result["accepted"], result["duplicates"]) == (2, 4)
        assert (await total(client, ada))["requests"] == 6


class TestPeriods:
    async def test_an_old_event_is_billed_in_its_own_month(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        long_ago = datetime(2020, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)

        result = await deliver(client, service, [event(time=long_ago)])

        assert result["accepted"] == 1
        window = {"from": "2020-02-29T23:00:00Z", "to": "2020-03-01T00:00:00Z"}
        assert (await total(client, ada, **window))["requests"] == 1

    async def test_an_event_of_a_closed_month_is_billed_in_the_open_one_and_marked_late(
        self, client: AsyncClient, service: Headers, ada: Headers, database: Database
    ) -> None:
        now = datetime.now(UTC)
        async with database.transaction() as session:
            session.add(Period(id="2026-01", closed_at=now))

        await deliver(client, service, [event(time="2026-01-31T23:59:59.5-00:00"), event()])

        async with database.snapshot() as session:
            receipts = (await session.scalars(select(UsageEvent).order_by(UsageEvent.time))).all()
        this_month = f"{now:%Y-%m}"
        assert [(each.period, each.late) for each in receipts] == [
            (this_month, True),
            (this_month, False),
        ]
        january = {"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}
        assert (await total(client, ada, **january))["requests"] == 1


class TestJournals:
    async def test_every_events_sequence_counts_as_received(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        first = event(sequence=1)
        events = [
            first,
            first | {"sequence": "2"},
            first | {"sequence": 3, "subject": BOB},
            event(sequence=4, rows=-1),
            event(sequence=5, price_id="unknown"),
            event(sequence=7),
        ]

        await deliver(client, service, events)

        (source,) = (await client.get("/sources", headers=admin)).json()["sources"]
        assert source["journal"] == JOURNAL
        assert (source["last"], source["received"], source["missing"]) == (7, 6, [[6, 6]])

    async def test_without_a_journal_the_source_is_the_journal(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await deliver(
            client, service, [event() | {"sequence": 1}, event(rows=-1) | {"sequence": 2}]
        )

        (source,) = (await client.get("/sources", headers=admin)).json()["sources"]
        assert (source["journal"], source["received"]) == ("/inference", 2)

    async def test_a_second_id_at_a_received_sequence_is_accepted(
        self, client: AsyncClient, service: Headers
    ) -> None:
        result = await deliver(client, service, [event(sequence=1), event(sequence=1)])

        assert result["accepted"] == 2

    async def test_the_highest_possible_sequence_can_arrive(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await deliver(client, service, [event(sequence=2**63 - 1)])
        await deliver(client, service, [event(sequence=2**63 - 2)])

        (source,) = (await client.get("/sources", headers=admin)).json()["sources"]
        assert source["missing"] == [[1, 2**63 - 3]]
