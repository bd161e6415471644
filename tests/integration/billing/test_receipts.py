"""Receipts: one per billed request of the account, newest first."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import AsyncClient

from harness.issuer import Headers, Issuer
from harness.usage_events import ADA, BOB, deliver, event

START = datetime(2026, 4, 1, tzinfo=UTC)


async def page(client: AsyncClient, headers: Headers, **query: Any) -> dict[str, Any]:
    answer = await client.get("/usage/events", headers=headers, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


class TestList:
    async def test_a_receipt_states_what_was_predicted_and_charged(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        sent = event(time="2026-04-01T02:00:00.123456+02:00", rows=3)
        sent["data"] |= {"client_id": "a-client", "latency_ms": 1.5}
        await deliver(client, service, [sent])

        (receipt,) = (await page(client, ada))["events"]

        price_id = receipt.pop("price_id")
        assert receipt == {
            "id": sent["id"],
            "source": "/inference",
            "time": "2026-04-01T00:00:00.123456Z",
            "model": "wine",
            "version": sent["data"]["version"],
            "rows": 3,
            "client_id": "a-client",
            "amount": "0.0008",
            "currency": "USD",
            "invoice": None,
        }
        plans = (await client.get("/plans")).json()["plans"]
        assert price_id == plans[0]["prices"][0]["id"]

    async def test_pages_follow_each_other_without_a_gap_or_a_repeat(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        events = [event(time=START + timedelta(seconds=n // 3), id=f"e{n:02}") for n in range(10)]
        events.append(event(time=START, id="e00", source="/elsewhere"))
        await deliver(client, service, events)

        seen, cursor = [], None
        while True:
            found = await page(client, ada, limit=2, **({"cursor": cursor} if cursor else {}))
            seen += [(each["time"], each["id"], each["source"]) for each in found["events"]]
            cursor = found["next_cursor"]
            if cursor is None:
                break

        assert seen == sorted(seen, reverse=True)
        assert len(set(seen)) == len(seen) == 11

    async def test_a_window_can_be_selected(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        events = [event(time=START + timedelta(hours=n), id=f"e{n}") for n in range(4)]
        await deliver(client, service, events)

        window = {"from": "2026-04-01T01:00:00Z", "to": "2026-04-01T03:00:00Z"}
        found = await page(client, ada, **window)

        assert [each["id"] for each in found["events"]] == ["e2", "e1"]

    async def test_other_accounts_receipts_are_not_shown(
        self, client: AsyncClient, service: Headers, ada: Headers, admin: Headers
    ) -> None:
        await deliver(client, service, [event(account=BOB)])

        assert (await page(client, ada))["events"] == []
        assert len((await page(client, admin, account=BOB))["events"]) == 1

    @pytest.mark.any_database
    @pytest.mark.parametrize(
        "query",
        [
            {"cursor": "not a cursor"},
            {"cursor": "é"},
            {"cursor": "YQ=="},
            {"cursor": "MDAwMS0wMS0wMVQwMDowMDowMCsyMzowMCBhIGI="},
            {"limit": "0"},
            {"limit": "1001"},
            {"from": "yesterday"},
        ],
    )
    async def test_an_invalid_query_is_422(
        self, client: AsyncClient, ada: Headers, query: dict[str, str]
    ) -> None:
        answer = await client.get("/usage/events", headers=ada, params=query)

        assert answer.status_code == 422

    @pytest.mark.any_database
    async def test_anonymous_may_not(self, client: AsyncClient) -> None:
        assert (await client.get("/usage/events")).status_code == 401


class TestCsv:
    @pytest.mark.costly
    async def test_all_receipts_are_streamed(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        events = [event(time=START + timedelta(seconds=n), id=f"e{n}") for n in range(2500)]
        await deliver(client, service, events)

        headers = ada | {"Accept": "text/csv; charset=utf-8, application/json;q=0.5"}
        answer = await client.get("/usage/events", headers=headers, params={"limit": 5})

        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [row["id"] for row in rows] == [f"e{n}" for n in reversed(range(2500))]
        assert rows[0]["amount"] == "0.0006"
        assert rows[0]["time"] == "2026-04-01T00:41:39Z"
        assert rows[0]["invoice"] == ""

    @pytest.mark.any_database
    async def test_no_cell_is_a_formula(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        formula = '=HYPERLINK("http://x.test";"pay")'
        sent = event(id=formula, source="@SUM(1+1)*cmd|' /C calc'!A0".replace(" ", "_"))
        sent["data"] |= {"model": "-2+3", "version": "+1", "client_id": "=1+1"}
        await deliver(client, service, [sent])

        answer = await client.get("/usage/events", headers=ada | {"Accept": "text/csv"})

        (row,) = csv.DictReader(io.StringIO(answer.text))
        assert row["id"] == f"'{formula}"
        assert row["source"] == f"'{sent['source']}"
        assert (row["model"], row["version"], row["client_id"]) == ("'-2+3", "+1", "'=1+1")
        assert (row["rows"], row["amount"], row["currency"]) == ("1", "0.0006", "USD")

    @pytest.mark.any_database
    async def test_without_receipts_there_is_only_the_header(
        self, client: AsyncClient, ada: Headers
    ) -> None:
        answer = await client.get("/usage/events", headers=ada | {"Accept": "text/csv"})

        assert answer.text.startswith("id,source,time,")
        assert answer.text.count("\r\n") == 1


class TestOne:
    async def test_a_receipt_is_found_by_its_events_id(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        sent = event()
        await deliver(client, service, [sent, event()])

        answer = await client.get(f"/usage/events/{sent['id']}", headers=ada)

        assert (answer.status_code, answer.json()["id"]) == (200, sent["id"])

    async def test_another_accounts_receipt_is_404(
        self, client: AsyncClient, service: Headers, ada: Headers, admin: Headers
    ) -> None:
        sent = event(account=BOB)
        await deliver(client, service, [sent])

        path = f"/usage/events/{sent['id']}"

        assert (await client.get(path, headers=ada)).status_code == 404
        assert (await client.get(path, headers=admin, params={"account": ADA})).status_code == 404
        assert (await client.get(path, headers=admin, params={"account": BOB})).status_code == 200

    @pytest.mark.parametrize("wanted", ["unknown", "é", "a%20b", "%00", "x" * 5000])
    async def test_an_unknown_receipt_is_404(
        self, client: AsyncClient, service: Headers, ada: Headers, wanted: str
    ) -> None:
        await deliver(client, service, [event(id="e")])

        answer = await client.get(f"/usage/events/{wanted}", headers=ada)

        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:tollgate:problem:receipt_not_found"

    async def test_a_service_finds_any_receipt(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        sent = event(account=BOB)
        await deliver(client, service, [sent])
        path = f"/usage/events/{sent['id']}"

        found = await client.get(path, headers=service)

        assert (found.json()["id"], found.json()["amount"]) == (sent["id"], "0.0006")
        assert (await client.get("/usage/events/none", headers=service)).status_code == 404
        of_ada = await client.get(path, headers=service, params={"account": ADA})
        assert of_ada.status_code == 403
        assert (await client.get("/usage/events", headers=service)).status_code == 403

    @pytest.mark.any_database
    async def test_anonymous_and_other_scopes_may_not(
        self, client: AsyncClient, issuer: Issuer
    ) -> None:
        predicting = issuer.headers("predict", account=ADA)

        assert (await client.get("/usage/events/some")).status_code == 401
        assert (await client.get("/usage/events/some", headers=predicting)).status_code == 403
