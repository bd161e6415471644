"""`/usage/accounts`: what several accounts used on each day of a month."""

from datetime import UTC, datetime, timedelta

import pytest
from httpx import AsyncClient

from harness.issuer import Headers, Issuer
from harness.usage_events import ADA, BOB
from services.common.db.database import Database
from tests.integration.billing.months import AFTER, DURING, PERIOD, use
from tests.integration.billing.statements import recorded

CAROL = "0198a000-0000-7000-8000-0000000000ca"
FIRST = datetime(2026, 10, 1, tzinfo=UTC)


async def test_each_account_has_its_days_in_the_order_of_the_request(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use(database, 1, 3, time=FIRST)
    await use(database, 2, model="iris", time=FIRST + timedelta(hours=23, minutes=59))
    await use(database, 5)
    await use(database, 7, account=BOB)
    await use(database, 9, time=FIRST - timedelta(microseconds=1))
    await use(database, 9, time=AFTER)

    asked = {"account": [BOB, CAROL, ADA, BOB], "period": PERIOD}
    answer = await client.get("/usage/accounts", params=asked, headers=admin)

    assert answer.json() == {
        "period": PERIOD,
        "accounts": [
            {
                "account": BOB,
                "total": {"requests": 1, "rows": 7, "amount": "0.0012", "currency": "USD"},
                "buckets": [{"key": "2026-10-20", "requests": 1, "rows": 7, "amount": "0.0012"}],
            },
            {
                "account": CAROL,
                "total": {"requests": 0, "rows": 0, "amount": "0", "currency": "USD"},
                "buckets": [],
            },
            {
                "account": ADA,
                "total": {"requests": 4, "rows": 11, "amount": "0.0031", "currency": "USD"},
                "buckets": [
                    {"key": "2026-10-01", "requests": 3, "rows": 6, "amount": "0.0021"},
                    {"key": "2026-10-20", "requests": 1, "rows": 5, "amount": "0.001"},
                ],
            },
        ],
    }


async def test_it_agrees_with_the_usage_of_each_account(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    for hours in (0, 30, 31):
        await use(database, 1, 2, time=DURING + timedelta(hours=hours))

    asked = {"account": ADA, "period": PERIOD}
    together = await client.get("/usage/accounts", params=asked, headers=admin)
    window = {"from": "2026-10-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"}
    alone = await client.get(
        "/usage", params={"account": ADA, "group_by": "day"} | window, headers=admin
    )

    (found,), expected = together.json()["accounts"], alone.json()
    times = {"from", "to"}
    buckets = [
        {key: value for key, value in each.items() if key not in times}
        for each in expected["buckets"]
    ]
    assert (found["total"], found["buckets"]) == (expected["total"], buckets)


async def test_it_reads_no_events(client: AsyncClient, admin: Headers, database: Database) -> None:
    await use(database, 1)

    with recorded(database) as statements:
        answer = await client.get("/usage/accounts", params={"account": ADA}, headers=admin)

    assert answer.status_code == 200
    assert statements == []


@pytest.mark.any_database
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"account": "ada"},
        {"account": [f"0198a000-0000-7000-8000-{number:012x}" for number in range(101)]},
        {"account": ADA, "period": "2026-13"},
    ],
)
async def test_a_wrong_request_is_refused(
    client: AsyncClient, admin: Headers, asked: dict[str, str | list[str]]
) -> None:
    answer = await client.get("/usage/accounts", params=asked, headers=admin)

    assert answer.status_code == 422


@pytest.mark.any_database
async def test_only_an_administrator_may(client: AsyncClient, issuer: Issuer) -> None:
    ada = issuer.headers("usage:read", account=ADA)

    answer = await client.get("/usage/accounts", params={"account": ADA}, headers=ada)

    assert answer.status_code == 403
