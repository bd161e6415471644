"""Usage events: each is counted once, and a bad event does not affect others."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from harness.issuer import Headers
from harness.usage_events import (
    ADA,
    BOB,
    deliver,
    event,
    post_events,
    total,
    used,
)
from services.common.contracts import CLOUDEVENTS_ONE
from tests.integration.billing.conftest import OpenApp, browse


class TestAccepting:
    async def test_a_batch_is_priced_and_appears_in_usage(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        result = await deliver(client, service, [event(rows=3), event(rows=2), event(account=BOB)])

        assert result == {"accepted": 3, "duplicates": 0, "conflicts": 0, "rejected": []}
        assert await total(client, ada) == used(2, 5, "0.0015")

    async def test_a_single_event_is_accepted(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        media_type = f"{CLOUDEVENTS_ONE}; charset=utf-8"

        answer = await post_events(client, service, orjson.dumps(event()), media_type)

        assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
        assert await total(client, ada) == used(1, 1, "0.0006")

    async def test_an_empty_batch_is_accepted(self, client: AsyncClient, service: Headers) -> None:
        result = await deliver(client, service, [])

        assert result == {"accepted": 0, "duplicates": 0, "conflicts": 0, "rejected": []}

    async def test_an_event_without_rows_costs_only_the_request(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        await deliver(client, service, [event(rows=0)])

        assert await total(client, ada) == used(1, 0, "0.0005")

    async def test_the_outcomes_are_counted_in_the_metrics(
        self, app: FastAPI, open_app: OpenApp, service: Headers
    ) -> None:
        first = event()
        async with open_app() as fresh, browse(fresh) as client:
            await deliver(client, service, [first, first, first | {"subject": BOB}, {}])

            text = (await client.get("/metrics")).text

        for outcome in ("accepted", "duplicate", "conflict", "rejected"):
            assert f'tollgate_billing_events_total{{outcome="{outcome}"}} 1.0' in text

    @pytest.mark.costly
    async def test_ten_thousand_events_fit_in_one_batch(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        events = [event(sequence=n) for n in range(1, 10_001)]

        result = await deliver(client, service, events)

        assert result["accepted"] == 10_000
        assert await total(client, ada) == used(10_000, 10_000, "6")


@pytest.mark.any_database
class TestRefusing:
    async def test_anonymous_is_401_before_the_body_is_read(self, client: AsyncClient) -> None:
        answer = await post_events(client, {}, b"not json")

        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")

    async def test_a_user_may_not_deliver_events(self, client: AsyncClient, ada: Headers) -> None:
        answer = await post_events(client, ada, b"[]")

        assert answer.status_code == 403

    @pytest.mark.parametrize("media_type", ["application/json", "", "application/cloudevents"])
    async def test_another_content_type_is_415(
        self, client: AsyncClient, service: Headers, media_type: str
    ) -> None:
        answer = await post_events(client, service, b"[]", media_type)

        assert answer.status_code == 415

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[NaN]", b'["\xff"]', b"[" * 100_000, b'["\\ud800"]']
    )
    async def test_a_body_that_is_not_json_is_400(
        self, client: AsyncClient, service: Headers, body: bytes
    ) -> None:
        answer = await post_events(client, service, body)

        assert answer.status_code == 400
        assert answer.json()["type"] == "urn:tollgate:problem:bad_request"

    async def test_a_batch_that_is_not_an_array_is_422(
        self, client: AsyncClient, service: Headers
    ) -> None:
        answer = await post_events(client, service, b"{}")

        assert answer.status_code == 422

    async def test_more_than_ten_thousand_events_are_413(
        self, client: AsyncClient, service: Headers
    ) -> None:
        answer = await post_events(client, service, orjson.dumps([{}] * 10_001))

        assert answer.status_code == 413

    async def test_more_than_sixteen_mebibytes_are_413(
        self, client: AsyncClient, service: Headers
    ) -> None:
        answer = await post_events(client, service, b" " * (16 * 2**20 + 1))

        assert answer.status_code == 413

    async def test_a_compressed_body_is_415(self, client: AsyncClient, service: Headers) -> None:
        answer = await post_events(client, service | {"Content-Encoding": "gzip"}, b"[]")

        assert answer.status_code == 415


@pytest.mark.any_database
class TestRejecting:
    async def test_good_events_of_a_batch_are_accepted(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        bad = event(rows=-1, id="bad-one")

        result = await deliver(client, service, [event(), bad, event()])

        assert result["accepted"] == 2
        assert [(each["index"], each["id"]) for each in result["rejected"]] == [(1, "bad-one")]
        assert result["rejected"][0]["reason"].startswith("data.rows: ")
        assert (await total(client, ada))["requests"] == 2

    @pytest.mark.parametrize(
        ("members", "reason"),
        [
            ({"rows": -1}, "data.rows"),
            ({"rows": 1.5}, "data.rows"),
            ({"rows": "1"}, "data.rows"),
            ({"rows": True}, "data.rows"),
            ({"rows": 2**31}, "data.rows"),
            ({"rows": 2**64}, "data.rows"),
            ({"rows": None}, "data.rows"),
            ({"model": "vin rouge"}, "data.model"),
            ({"model": "é"}, "data.model"),
            ({"model": ""}, "data.model"),
            ({"data": None}, "data"),
            ({"specversion": "0.3"}, "specversion"),
            ({"type": "other"}, "type"),
            ({"subject": "someone"}, "subject"),
            ({"subject": ADA.upper()}, "subject"),
            ({"time": "2026-11-01T00:00:00"}, "time"),
            ({"time": 1_790_000_000}, "time"),
            ({"time": "1790000000"}, "time"),
            ({"time": "1969-12-31T23:59:59Z"}, "time"),
            ({"time": "0001-01-01T00:00:00+23:59"}, "time"),
            ({"time": "9999-12-31T23:59:59-23:59"}, "time"),
            ({"time": datetime.now(UTC) + timedelta(hours=1)}, "time"),
            ({"time": datetime.now(UTC) + timedelta(days=1)}, "time"),
            ({"id": "two words"}, "id"),
            ({"id": "x" * 65}, "id"),
            ({"id": ""}, "id"),
            ({"id": 7}, "id"),
            ({"source": "/é"}, "source"),
            ({"sequence": 0}, "sequence"),
            ({"sequence": 2**63}, "sequence"),
            ({"price_id": "nobody-knows-it"}, "data.price_id: unknown price"),
        ],
    )
    async def test_an_invalid_event_is_rejected_with_a_reason(
        self, client: AsyncClient, service: Headers, members: dict[str, Any], reason: str
    ) -> None:
        result = await deliver(client, service, [event(**members)])

        assert (result["accepted"], len(result["rejected"])) == (0, 1)
        assert result["rejected"][0]["reason"].startswith(reason)

    async def test_an_event_too_far_in_the_future_is_rejected(
        self, client: AsyncClient, service: Headers
    ) -> None:
        ahead = event(time=datetime.now(UTC) + timedelta(minutes=6))

        result = await deliver(client, service, [ahead])

        assert result["rejected"][0]["reason"].startswith("time")

    @pytest.mark.parametrize("item", [None, 7, "text", [], [[]]])
    async def test_an_event_that_is_not_an_object_is_rejected(
        self, client: AsyncClient, service: Headers, item: Any
    ) -> None:
        result = await deliver(client, service, [item])

        assert result["rejected"][0]["index"] == 0
        assert result["rejected"][0]["id"] is None

    async def test_only_a_shortened_id_of_the_input_is_echoed(
        self, client: AsyncClient, service: Headers
    ) -> None:
        secret = "hunter2"
        bad = event(id="a\n\x1b[31mé" + "b" * 100, subject=secret, type=secret, time=secret)

        answer = await post_events(client, service, orjson.dumps([bad]))

        (rejected,) = answer.json()["rejected"]
        assert secret not in answer.text
        assert rejected["id"] == "a[31m" + "b" * 59

    async def test_an_event_slightly_in_the_future_is_accepted(
        self, client: AsyncClient, service: Headers
    ) -> None:
        ahead = datetime.now(UTC) + timedelta(minutes=4)

        result = await deliver(client, service, [event(time=ahead)])

        assert result["accepted"] == 1

    async def test_without_a_plan_every_event_is_rejected(
        self, app: FastAPI, open_app: OpenApp, service: Headers
    ) -> None:
        async with open_app(default_plan=None) as bare, browse(bare) as client:
            result = await deliver(client, service, [event()])

        assert result["rejected"][0]["reason"] == "no plan was in force at the event's time"
