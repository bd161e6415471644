"""Usage: any window, any grouping, only for those who may read it."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.issuer import Headers, Issuer
from harness.usage_events import ADA, BOB, deliver, event
from services.billing.events.service import ingest
from services.billing.usage.service import read_usage
from services.common.db.database import Database
from tests.integration.billing.conftest import OpenApp, browse
from tests.integration.billing.test_races import DEFAULT_PLAN

TIMES = ["2026-03-31T23:59:59.999999Z", "2026-04-01T00:00:00Z", "2026-04-01T00:59:59Z"]
AROUND = {"from": "2026-03-01T00:00:00Z", "to": "2026-05-01T00:00:00Z"}


async def usage(client: AsyncClient, headers: Headers, **query: Any) -> dict[str, Any]:
    answer = await client.get("/usage", headers=headers, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


class TestGrouping:
    @pytest.mark.parametrize(
        ("group_by", "expected"),
        [
            (
                "hour",
                [
                    ("2026-03-31T23:00:00Z", "2026-03-31T23:00:00Z", "2026-04-01T00:00:00Z", 1),
                    ("2026-04-01T00:00:00Z", "2026-04-01T00:00:00Z", "2026-04-01T01:00:00Z", 2),
                ],
            ),
            (
                "day",
                [
                    ("2026-03-31", "2026-03-31T00:00:00Z", "2026-04-01T00:00:00Z", 1),
                    ("2026-04-01", "2026-04-01T00:00:00Z", "2026-04-02T00:00:00Z", 2),
                ],
            ),
            (
                "month",
                [
                    ("2026-03", "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z", 1),
                    ("2026-04", "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z", 2),
                ],
            ),
        ],
    )
    async def test_by_time(
        self,
        client: AsyncClient,
        service: Headers,
        ada: Headers,
        group_by: str,
        expected: list[tuple[str, str, str, int]],
    ) -> None:
        await deliver(client, service, [event(time=time) for time in TIMES])

        found = await usage(client, ada, group_by=group_by, **AROUND)

        columns = ("key", "from", "to", "requests")
        buckets = [tuple(each[column] for column in columns) for each in found["buckets"]]
        assert buckets == expected
        assert found["total"]["requests"] == 3

    async def test_by_model(self, client: AsyncClient, service: Headers, ada: Headers) -> None:
        await deliver(client, service, [event(model="wine"), event(model="iris", rows=4), event()])

        found = await usage(client, ada, group_by="model")

        assert found["buckets"] == [
            {"key": "iris", "requests": 1, "rows": 4, "amount": "0.0009"},
            {"key": "wine", "requests": 2, "rows": 2, "amount": "0.0012"},
        ]

    async def test_by_hour_clipped_to_the_window(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        await deliver(client, service, [event(time=time) for time in TIMES])

        window = {"from": "2026-03-31T23:30:00Z", "to": "2026-04-01T00:30:00+00:00"}
        found = await usage(client, ada, group_by="hour", **window)

        assert [(each["from"], each["to"], each["requests"]) for each in found["buckets"]] == [
            ("2026-03-31T23:30:00Z", "2026-04-01T00:00:00Z", 1),
            ("2026-04-01T00:00:00Z", "2026-04-01T00:30:00Z", 1),
        ]


class TestWindow:
    async def test_it_is_this_month_until_now_by_default(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        now = datetime.now(UTC)
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        before, ahead = month - timedelta(microseconds=1), now + timedelta(minutes=4)
        await deliver(client, service, [event(), event(time=before), event(time=ahead)])

        found = await usage(client, ada)

        assert found["account"] == ADA
        assert datetime.fromisoformat(found["from"]) == month
        assert now <= datetime.fromisoformat(found["to"]) <= datetime.now(UTC)
        assert found["total"]["requests"] == 1

    async def test_its_start_is_inclusive_and_its_end_exclusive(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        await deliver(client, service, [event(time=time) for time in TIMES])

        found = await usage(client, ada, **{"from": TIMES[0], "to": TIMES[2]})

        assert found["total"]["requests"] == 2

    async def test_an_empty_window_has_no_usage(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        await deliver(client, service, [event(time=time) for time in TIMES])

        found = await usage(client, ada, **{"from": TIMES[1], "to": TIMES[1]})

        assert (found["total"]["requests"], found["buckets"]) == (0, [])

    @pytest.mark.costly
    @settings(
        max_examples=15,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        minutes=st.lists(st.integers(0, 60 * 5), max_size=12),
        window=st.tuples(st.integers(0, 60 * 5), st.integers(0, 60 * 5)).map(sorted),
    )
    async def test_any_window_has_exactly_its_receipts(
        self, database: Database, minutes: list[int], window: list[int]
    ) -> None:
        account, start = str(uuid.uuid4()), datetime(2026, 3, 31, 22, tzinfo=UTC)
        events = [event(account=account, time=start + timedelta(minutes=m)) for m in minutes]
        now = datetime.now(UTC)
        await ingest(database, items=events, default_plan=DEFAULT_PLAN, now=now)

        found = await read_usage(
            database,
            account=account,
            since=start + timedelta(minutes=window[0]),
            until=start + timedelta(minutes=window[1]),
            group_by="hour",
            default_plan=DEFAULT_PLAN,
            now=now,
        )

        within = sum(window[0] <= minute < window[1] for minute in minutes)
        assert found.total.requests == within
        assert sum(bucket.requests for bucket in found.buckets) == within


class TestCurrency:
    async def test_an_unknown_account_has_no_usage_in_its_plans_currency(
        self, client: AsyncClient, ada: Headers
    ) -> None:
        found = await usage(client, ada)

        assert found["total"] == {"requests": 0, "rows": 0, "amount": "0", "currency": "USD"}
        assert found["buckets"] == []

    @pytest.mark.any_database
    async def test_without_a_plan_there_is_none(
        self, app: FastAPI, open_app: OpenApp, ada: Headers
    ) -> None:
        async with open_app(default_plan=None) as bare, browse(bare) as client:
            found = await usage(client, ada)

        assert found["total"]["currency"] is None


@pytest.mark.any_database
class TestWhoMay:
    async def test_anonymous_may_not(self, client: AsyncClient) -> None:
        assert (await client.get("/usage")).status_code == 401

    async def test_a_token_without_the_scope_may_not(
        self, client: AsyncClient, issuer: Issuer
    ) -> None:
        headers = issuer.headers("predict", account=ADA)

        assert (await client.get("/usage", headers=headers)).status_code == 403

    @pytest.mark.parametrize("account", [ADA, BOB, "no UUID", ""])
    @pytest.mark.parametrize("path", ["/usage", "/usage/events", "/usage/events/some-id"])
    async def test_the_scope_for_another_account_is_checked_first(
        self, client: AsyncClient, ada: Headers, path: str, account: str
    ) -> None:
        query = {"account": account, "from": "not a time"}

        answer = await client.get(path, headers=ada, params=query)

        assert answer.status_code == 403

    async def test_an_administrator_may_read_any_account(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await deliver(client, service, [event(account=BOB)])

        found = await usage(client, admin, account=BOB)

        assert (found["account"], found["total"]["requests"]) == (BOB, 1)

    async def test_an_invalid_account_is_422_for_an_administrator(
        self, client: AsyncClient, admin: Headers
    ) -> None:
        answer = await client.get("/usage", headers=admin, params={"account": "no UUID"})

        assert answer.status_code == 422
        assert "no UUID" not in answer.json()["detail"]


@pytest.mark.any_database
@pytest.mark.parametrize(
    "query",
    [
        {"from": "2026-04-01T00:00:00"},
        {"from": "2026-04-01"},
        {"from": "1790000000"},
        {"to": "yesterday"},
        {"to": "9999-12-31T23:59:59Z"},
        {"from": "0001-01-01T00:00:00+14:00"},
        {"from": "2026-04-02T00:00:00Z", "to": "2026-04-01T00:00:00Z"},
        {"from": "2999-01-01T00:00:00Z"},
        {"group_by": "week"},
        {"group_by": "tag:"},
        {"group_by": "tag:a b"},
        {"group_by": "hour\n"},
    ],
)
async def test_an_invalid_query_is_422(
    client: AsyncClient, ada: Headers, query: dict[str, str]
) -> None:
    answer = await client.get("/usage", headers=ada, params=query)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"][0] == "query"
    assert not any(value in answer.text for name, value in query.items() if name != "group_by")
