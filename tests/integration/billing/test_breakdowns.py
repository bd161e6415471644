"""Usage by version, API key and tag: the buckets add up to the total, in any window."""

import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import AsyncClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from harness.issuer import Headers
from harness.usage_events import BOB, deliver, event
from services.billing.events.service import ingest
from services.billing.models import UsageBreakdown, UsageVersion
from services.billing.usage import service as usage_service
from services.billing.usage.service import read_usage
from services.common.contracts import MAX_AMOUNT, format_amount
from services.common.db.database import Database
from tests.integration.billing.test_races import DEFAULT_PLAN
from tests.integration.billing.test_tags import tagged
from tests.integration.billing.test_usage import usage

START = datetime(2026, 3, 31, 22, tzinfo=UTC)


def of(key: str | None, requests: int, rows: int, amount: str) -> dict[str, Any]:
    return {"key": key, "requests": requests, "rows": rows, "amount": amount}


@pytest.fixture
async def delivered(client: AsyncClient, service: Headers) -> None:
    """Four requests of Ada, and one of Bob with the same tag."""
    events = [
        tagged(api_key="key-1", tags={"team": "a", "project": "x"}),
        tagged(api_key="key-2", tags={"team": "b"}, rows=3),
        tagged(tags={"team": "a"}),
        event(),
        tagged(api_key="key-1", tags={"team": "a"}, account=BOB),
    ]
    events[3]["data"]["version"] = "v2"
    await deliver(client, service, events)


@pytest.mark.usefixtures("delivered")
class TestGrouping:
    @pytest.mark.parametrize(
        ("group_by", "expected"),
        [
            ("version", [of("20261122t000000z-0a1b2c3d", 3, 5, "0.002"), of("v2", 1, 1, "0.0006")]),
            (
                "api_key",
                [
                    of("key-1", 1, 1, "0.0006"),
                    of("key-2", 1, 3, "0.0008"),
                    of(None, 2, 2, "0.0012"),
                ],
            ),
            (
                "tag:team",
                [of("a", 2, 2, "0.0012"), of("b", 1, 3, "0.0008"), of(None, 1, 1, "0.0006")],
            ),
            ("tag:project", [of("x", 1, 1, "0.0006"), of(None, 3, 5, "0.002")]),
            ("tag:other", [of(None, 4, 6, "0.0026")]),
        ],
    )
    async def test_buckets_add_up_to_the_total(
        self, client: AsyncClient, ada: Headers, group_by: str, expected: list[dict[str, Any]]
    ) -> None:
        found = await usage(client, ada, group_by=group_by)

        assert found["buckets"] == expected
        total = found["total"]
        assert (total["requests"], total["rows"], total["amount"]) == (4, 6, "0.0026")

    async def test_an_empty_window_has_no_buckets(self, client: AsyncClient, ada: Headers) -> None:
        moment = "2026-04-01T00:30:00Z"

        found = await usage(client, ada, group_by="tag:team", **{"from": moment, "to": moment})

        assert (found["total"]["requests"], found["buckets"]) == (0, [])

    async def test_too_many_values_are_refused(
        self, client: AsyncClient, ada: Headers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(usage_service, "MAX_VALUES", 1)

        answer = await client.get("/usage", headers=ada, params={"group_by": "tag:team"})

        assert answer.status_code == 422
        assert "shorter window" in answer.json()["errors"][0]["msg"]


async def test_versions_that_the_version_before_counted_are_added(
    client: AsyncClient, service: Headers, ada: Headers, database: Database
) -> None:
    await deliver(client, service, [event(version="v1"), event(version="v2", rows=3)])
    async with database.transaction() as session:
        counted = (await session.scalars(select(UsageVersion))).all()
        await session.execute(delete(UsageVersion))
        session.add_all(
            UsageBreakdown(
                account=each.account,
                dimension="version",
                hour=each.hour,
                value=each.version,
                requests=each.requests,
                rows=each.rows,
                amount_low=each.amount_low,
            )
            for each in counted
        )
    await deliver(client, service, [event(version="v2")])

    found = await usage(client, ada, group_by="version")

    assert found["buckets"] == [of("v1", 1, 1, "0.0006"), of("v2", 2, 4, "0.0014")]


@pytest.mark.parametrize("group_by", ["version", "tag:team"])
async def test_no_bucket_is_negative_in_the_hour_of_an_upgrade(
    client: AsyncClient, service: Headers, ada: Headers, database: Database, group_by: str
) -> None:
    before, after = START + timedelta(minutes=10), START + timedelta(minutes=50)
    uncounted = [
        tagged(time=time, rows=rows, tags={"team": "a"})
        for time, rows in ((before, 2), (after, 9), (after, 8))
    ]
    await deliver(client, service, uncounted)
    async with database.transaction() as session:
        for table in (UsageVersion, UsageBreakdown):
            await session.execute(delete(table))
    counted = [tagged(time=time, tags={"team": "a"}) for time in (before, after, after, after)]
    await deliver(client, service, counted)
    window = {"from": START.isoformat(), "to": "2026-03-31T22:30:00Z"}

    found = await usage(client, ada, group_by=group_by, **window)

    assert (found["total"]["requests"], found["total"]["rows"]) == (2, 3)
    assert found["buckets"] == [of(None, 2, 3, found["total"]["amount"])]


async def test_a_tag_that_differs_everywhere_has_few_sums(
    client: AsyncClient,
    service: Headers,
    ada: Headers,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage_service, "TAG_VALUES_PER_HOUR", 3)

    def tags(*numbers: int) -> list[dict[str, Any]]:
        return [
            tagged(time=START, api_key=f"k{n}", tags={"request": f"r{n}", "team": "a"})
            for n in numbers
        ]

    await deliver(client, service, [*tags(0, 1), tagged(account=BOB, tags={"request": "b"})])
    await deliver(client, service, tags(1, 2, 3, 4))
    await deliver(client, service, tags(0, 2, 5))

    window = {"from": "2026-03-31T22:00:00Z", "to": "2026-03-31T23:00:00Z"}
    found = await usage(client, ada, group_by="tag:request", **window)
    assert [(each["key"], each["requests"]) for each in found["buckets"]] == [
        ("r0", 2),
        ("r1", 2),
        ("r2", 2),
        (None, 3),
    ]
    assert found["total"]["requests"] == 9
    for group_by, buckets in (("tag:team", 1), ("api_key", 6)):
        assert len((await usage(client, ada, group_by=group_by, **window))["buckets"]) == buckets


async def test_a_repeat_is_not_counted_again(
    client: AsyncClient, service: Headers, ada: Headers
) -> None:
    sent = tagged(tags={"team": "a"})

    await deliver(client, service, [sent, sent])
    await deliver(client, service, [sent])

    found = await usage(client, ada, group_by="tag:team")
    assert found["buckets"] == [of("a", 1, 1, "0.0006")]


async def test_sums_beyond_64_bits_are_exact(
    client: AsyncClient, service: Headers, ada: Headers, admin: Headers
) -> None:
    price = {"per_request": format_amount(MAX_AMOUNT), "per_row": "0"}
    tiers = [{"up_to_requests": None} | price]
    prices = [{"model": None, "included_requests": 0, "tiers": tiers}]
    plan = {"name": "Dear", "currency": "USD", "billing": "postpaid", "prices": prices}
    stored = await client.post("/plans", headers=admin, json=plan | {"rate_limit": None})
    price_id = stored.json()["prices"][0]["id"]
    events = [tagged(price_id=price_id, tags={"team": "a"}) for _ in range(25)]

    await deliver(client, service, events[:5])
    await deliver(client, service, events[5:])

    found = await usage(client, ada, group_by="tag:team")
    assert found["buckets"] == [of("a", 25, 25, "25000000000000")]


@pytest.mark.costly
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    events=st.lists(st.tuples(st.integers(0, 60 * 3), st.sampled_from(["a", "b", None]))),
    window=st.tuples(st.integers(0, 60 * 3), st.integers(0, 60 * 3)).map(sorted),
)
@pytest.mark.parametrize("group_by", ["tag:team", "api_key"])
async def test_any_window_has_exactly_its_events(
    database: Database, events: list[tuple[int, str | None]], window: list[int], group_by: str
) -> None:
    account, now = str(uuid.uuid4()), datetime.now(UTC)
    sent = [
        tagged(
            account=account,
            time=START + timedelta(minutes=minute),
            api_key=value,
            tags={"team": value} if value else None,
        )
        for minute, value in events
    ]
    await ingest(database, items=sent, default_plan=DEFAULT_PLAN, now=now)

    found = await read_usage(
        database,
        account=account,
        since=START + timedelta(minutes=window[0]),
        until=START + timedelta(minutes=window[1]),
        group_by=group_by,
        default_plan=DEFAULT_PLAN,
        now=now,
    )

    within = Counter(value for minute, value in events if window[0] <= minute < window[1])
    assert {bucket.key: bucket.requests for bucket in found.buckets} == within
    assert found.total.requests == within.total()
