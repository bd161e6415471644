"""Archives: old events move into files, and every answer stays what it was."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from harness.issuer import Headers, Issuer
from harness.plans import plan, price
from harness.usage_events import ADA, BOB, Json, event
from services.billing.archives import reading
from services.billing.archives.models import ArchivePart
from services.billing.archives.reading import Archives
from services.billing.corrections import recalls
from services.billing.invoices.models import LateEvent
from services.billing.models import EventConflict, UsageEvent
from services.billing.receipts.verifying import verify_receipt
from services.billing.usage import edges
from services.billing.usage import service as usage
from services.billing.verify import verify
from services.common.db.database import Database
from tests.integration.billing.archived import archive_month, archive_until, count
from tests.integration.billing.money import new_id, take
from tests.integration.billing.months import (
    AFTER,
    DURING,
    LOCAL_PLAN_ID,
    PERIOD,
    close,
    deliver,
    use,
)
from tests.integration.billing.test_recalls import store_recall

pytestmark = pytest.mark.costly

LATER = datetime(2026, 12, 10, 12, tzinfo=UTC)


async def answers(
    client: AsyncClient, user: Headers, admin: Headers, events: list[Json]
) -> dict[str, Any]:
    """Return the API's answers about the events, in every way in which it reads single ones."""
    found: dict[str, Any] = {}

    async def get(path: str, query: dict[str, str], headers: Headers = user) -> Any:
        answer = await client.get(path, headers=headers, params=query)
        assert answer.status_code in (200, 404), answer.text
        found[f"{path} {sorted(query.items())} {headers.get('Accept')}"] = (
            answer.status_code,
            answer.text if answer.status_code == 200 else "",
        )
        return answer

    cursor: dict[str, str] = {}
    for _ in range(20):
        page = (await get("/usage/events", {"limit": "3"} | cursor)).json()
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    window = {"from": "2026-09-20T12:35:00Z", "to": "2026-10-20T12:00:03Z"}
    within = {"from": "2026-10-20T12:00:02Z", "to": "2026-10-20T12:45:00Z"}
    await get("/usage/events", window)
    await get("/usage/events", {}, user | {"Accept": "text/csv"})
    jwks = (await client.get("/.well-known/jwks.json")).json()
    for each in events:
        await get(f"/usage/events/{each['id']}", {})
        path = f"/usage/events/{each['id']}"
        signed = await client.get(
            path,
            headers=admin | {"Accept": "application/jose"},
            params={"account": each["subject"]},
        )
        found[f"{path} signed"] = verify_receipt(signed.text, jwks=jwks)
    for group_by in ("hour", "month", "model", "version", "api_key", "tag:team"):
        await get("/usage", {"group_by": group_by} | window)
        await get("/usage", {"group_by": group_by} | within)
    for file_format in ("csv", "focus"):
        await get("/exports/usage", {"period": PERIOD, "format": file_format})
    in_order = plan(price((1, "1", "0.1"), (None, "0.1", "0.01")))
    for name, wanted in {"local": LOCAL_PLAN_ID, "in order": in_order}.items():
        body = {"plan": wanted, "period": PERIOD}
        preview = await client.post("/plans/preview", headers=admin, json=body)
        assert preview.status_code == 200
        found[f"preview {name}"] = preview.json()
    return found


class TestReading:
    async def test_every_answer_stays_the_same(
        self,
        client: AsyncClient,
        ada: Headers,
        admin: Headers,
        october: list[Json],
        database: Database,
        archives: Archives,
    ) -> None:
        before = await answers(client, ada, admin, october)

        done = await archive_month(database, archives)

        assert (done.requests, done.files) == (11, 3)
        assert await count(database, UsageEvent, UsageEvent.period == PERIOD) == 0
        assert await count(database, LateEvent) == 0
        assert await answers(client, ada, admin, october) == before
        assert await verify(database, archives) == []

    async def test_every_answer_stays_the_same_while_events_are_deleted(
        self,
        client: AsyncClient,
        ada: Headers,
        admin: Headers,
        october: list[Json],
        database: Database,
        archives: Archives,
    ) -> None:
        before = await answers(client, ada, admin, october)

        await archive_until(database, archives, "deleted")

        assert 0 < await count(database, UsageEvent, UsageEvent.period == PERIOD) < 11
        assert await answers(client, ada, admin, october) == before

    @pytest.mark.parametrize("group_by", ["hour", "version"])
    async def test_a_month_that_is_archived_while_usage_is_read_counts_once(
        self,
        client: AsyncClient,
        ada: Headers,
        october: list[Json],
        database: Database,
        archives: Archives,
        monkeypatch: pytest.MonkeyPatch,
        group_by: str,
    ) -> None:
        window = {"from": "2026-10-20T12:00:02Z", "to": "2026-10-20T12:45:00Z"}
        query = window | {"group_by": group_by}
        before = await client.get("/usage", headers=ada, params=query)

        async def read_and_archive(*arguments: Any) -> Any:
            found = await edges.read_settled(*arguments)
            await archive_month(database, archives)
            return found

        monkeypatch.setattr(usage, "read_settled", read_and_archive)
        during = await client.get("/usage", headers=ada, params=query)

        assert during.json() == before.json()

    @pytest.mark.parametrize("damage", ["damaged", "missing"])
    async def test_a_file_that_is_not_what_was_written_is_named_and_never_read(
        self,
        client: AsyncClient,
        ada: Headers,
        october: list[Json],
        database: Database,
        archives: Archives,
        app: FastAPI,
        damage: str,
    ) -> None:
        await archive_month(database, archives)
        async with database.snapshot() as session:
            part = await session.get_one(ArchivePart, (PERIOD, 2))
        path = Path(archives.store.url) / "usage" / PERIOD / part.name
        if damage == "missing":
            path.unlink()
        else:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)

        for url in ("/usage/events", f"/exports/usage?period={PERIOD}"):
            answer = await client.get(url, headers=ada)

            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "60"
            assert answer.json()["type"].endswith("archive_unavailable")
            assert PERIOD in answer.json()["detail"]
        csv = await client.get("/usage/events", headers=ada | {"Accept": "text/csv"})
        assert csv.status_code == 503
        word = "is damaged" if damage == "damaged" else "is missing"
        assert f"archives: {PERIOD}, file 2: {word}" in await verify(database, archives)

    async def test_an_account_without_archived_usage_needs_no_file(
        self,
        client: AsyncClient,
        issuer: Issuer,
        october: list[Json],
        database: Database,
        archives: Archives,
    ) -> None:
        account = new_id()
        await archive_month(database, archives)
        await use(database, 1, account=account, time=AFTER)
        for file in (Path(archives.store.url) / "usage" / PERIOD).iterdir():
            file.unlink()
        headers = issuer.headers("usage:read", account=account)
        window = {"from": "2026-10-20T12:10:00Z", "to": "2026-11-10T12:10:00Z"}

        page = await client.get("/usage/events", headers=headers)
        usage = await client.get("/usage", headers=headers, params=window)
        export = await client.get("/exports/usage", headers=headers, params={"period": PERIOD})

        assert len(page.json()["events"]) == 1
        assert usage.json()["total"]["requests"] == 1
        assert export.status_code == 200

    async def test_without_duckdb_what_needs_an_archive_says_so(
        self,
        client: AsyncClient,
        ada: Headers,
        october: list[Json],
        database: Database,
        archives: Archives,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await archive_month(database, archives)
        monkeypatch.setattr(reading, "is_installed", lambda: False)

        answer = await client.get("/usage/events", headers=ada)

        assert answer.status_code == 501
        assert answer.json()["type"].endswith("duckdb_not_installed")
        assert (await client.get("/usage", headers=ada)).status_code == 200


class TestBilling:
    async def test_an_archived_event_that_comes_again_is_a_duplicate_as_before(
        self, database: Database, october: list[Json], archives: Archives
    ) -> None:
        changed = october[0] | {"data": october[0]["data"] | {"rows": 99}}
        again = [*october, changed]
        before = await take(database, again, now=AFTER, plan_id=LOCAL_PLAN_ID)
        await archive_month(database, archives)

        after = await take(database, again, now=LATER, plan_id=LOCAL_PLAN_ID)

        assert after == before
        assert (after.accepted, after.duplicates, after.conflicts) == (0, len(october), 1)
        assert await count(database, UsageEvent, UsageEvent.period != "2026-09") == 0
        assert await count(database, EventConflict) == 1
        assert await verify(database, archives) == []

    async def test_a_new_event_of_an_archived_month_is_billed_in_the_open_one(
        self,
        client: AsyncClient,
        ada: Headers,
        database: Database,
        october: list[Json],
        archives: Archives,
    ) -> None:
        await archive_month(database, archives)
        late = event(rows=8, time=DURING + timedelta(seconds=2))
        await deliver(database, [late], now=AFTER)

        page = (await client.get("/usage/events", headers=ada)).json()["events"]
        assert late["id"] in [each["id"] for each in page]
        assert len(page) == 11
        (issued,) = (await close(database, "2026-11", now=LATER)).invoices
        await archive_month(database, archives, "2026-11", now=LATER)

        assert issued.account == ADA
        assert await verify(database, archives) == []
        assert (await client.get("/usage/events", headers=ada)).json()["events"] == [
            each | {"invoice": issued.number} if each["id"] == late["id"] else each for each in page
        ]

    async def test_archived_events_are_taken_back_once(
        self,
        client: AsyncClient,
        admin: Headers,
        database: Database,
        october: list[Json],
        archives: Archives,
    ) -> None:
        await archive_month(database, archives)
        named = {"events": [october[0]["id"], october[8]["id"]], "reason": "A test."}
        matching = {"filter": {"account": BOB, "from": "2026-10-20T00:00:00Z"}, "reason": "A test."}

        answers = [
            await client.post("/adjustments", headers=admin | {"Idempotency-Key": key}, json=body)
            for key, body in (("1", named), ("2", matching), ("3", named))
        ]

        assert [each.status_code for each in answers] == [201, 201, 409]
        assert [each.json()["events"] for each in answers[:2]] == [2, 1]
        assert await verify(database, archives) == []

    async def test_a_recall_reaches_archived_events_and_closing_keeps_its_sums(
        self, database: Database, october: list[Json], archives: Archives
    ) -> None:
        await archive_month(database, archives)

        await store_recall(database)
        await recalls.apply(database, archives, now=AFTER)

        async with database.snapshot() as session:
            recall = (await recalls.list_recalls(session)).recalls[0]
        assert recall.finished_at is not None
        assert await verify(database, archives) == []
        await close(database, "2026-11", now=LATER)
        assert await verify(database, archives) == []
