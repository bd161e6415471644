"""Previews of plans: what a past month would have cost under another plan."""

from datetime import timedelta

import pytest
from httpx import AsyncClient

from harness.issuer import Headers, Issuer
from harness.plans import plan, price
from harness.usage_events import ADA, BOB, Json
from services.common.db.database import Database
from tests.integration.billing.months import DURING, LOCAL_PLAN_ID, PERIOD, close, use
from tests.integration.billing.statements import accesses, recorded

DOUBLED = plan(price((None, "0.001", "0.0002")))
TIERED = plan(price((2, "1", "0"), (None, "0.1", "0"), included=1))
IN_ORDER = plan(price((1, "1", "1"), (None, "0.1", "0.01")))
BY_MODEL = plan(price((None, "0.001", "0.0002"), model="wine"))
PLANS = {"in order": IN_ORDER, "by model": BY_MODEL}
AFTER = {"in order": "2.25", "by model": "0.0042"}


async def test_every_account_before_and_after(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use(database, 1, 1)
    await use(database, 6, account=BOB)

    response = await client.post(
        "/plans/preview", headers=admin, json={"plan": DOUBLED, "period": PERIOD}
    )

    assert response.json() == {
        "period": PERIOD,
        "accounts": [
            {"account": BOB, "before": "0.0011", "after": "0.0022"},
            {"account": ADA, "before": "0.0012", "after": "0.0024"},
        ],
        "total": {"before": "0.0023", "after": "0.0046"},
    }


async def test_the_own_plan_changes_nothing(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use(database, 3, 4, 5)

    response = await client.post(
        "/plans/preview",
        headers=admin,
        json={"plan": LOCAL_PLAN_ID, "account": ADA, "period": PERIOD},
    )

    total = response.json()["total"]
    assert total["before"] == total["after"] == "0.0027"


async def test_tiers_and_included_requests_count_from_1_for_each_account(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use(database, 1, 1, 1, 1)
    await use(database, 1, 1, account=BOB)

    response = await client.post(
        "/plans/preview", headers=admin, json={"plan": TIERED, "period": PERIOD}
    )

    after = {each["account"]: each["after"] for each in response.json()["accounts"]}
    assert after == {ADA: "1.2", BOB: "1"}


async def test_rows_cost_what_the_tier_of_their_own_request_says(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    for number, rows in enumerate((1, 10, 100)):
        await use(database, rows, now=DURING + timedelta(seconds=number))
    await use(database, 5, account=BOB)

    response = await client.post(
        "/plans/preview", headers=admin, json={"plan": IN_ORDER, "period": PERIOD}
    )

    after = {each["account"]: each["after"] for each in response.json()["accounts"]}
    assert after == {ADA: "3.3", BOB: "6"}


async def test_each_model_has_its_own_price_or_that_of_the_others(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use(database, 1, 2)
    await use(database, 3, model="iris")
    await use(database, 4, 5, model="rain", account=BOB)
    only_wine = plan(price((None, "1", "0.1"), model="wine"))
    by_model = plan(*only_wine["prices"], price((1, "0.01", "0.5"), (None, "0.02", "0.5")))

    for asked, expected in (
        (only_wine, {ADA: "2.3", BOB: "0"}),
        (by_model, {ADA: "3.81", BOB: "4.53"}),
    ):
        response = await client.post(
            "/plans/preview", headers=admin, json={"plan": asked, "period": PERIOD}
        )
        after = {each["account"]: each["after"] for each in response.json()["accounts"]}
        assert after == expected


async def test_a_price_for_all_models_reads_no_events(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use(database, 1, 2, 3)

    with recorded(database) as statements:
        for asked in (DOUBLED, TIERED):
            body = {"plan": asked, "period": PERIOD}
            answer = await client.post("/plans/preview", headers=admin, json=body)
            assert answer.status_code == 200

    assert statements == []


@pytest.mark.parametrize("account", [ADA, None])
@pytest.mark.parametrize("asked", ["in order", "by model"])
async def test_other_months_are_not_read(
    client: AsyncClient, admin: Headers, database: Database, account: str | None, asked: str
) -> None:
    for days in (60, 90):
        await use(database, *range(300), time=DURING - timedelta(days=days))
    await close(database, "2026-09", now=DURING)
    await use(database, 1, 1)
    await use(database, 4, time=DURING - timedelta(days=30), now=DURING + timedelta(seconds=1))

    with recorded(database) as statements:
        response = await client.post(
            "/plans/preview",
            headers=admin,
            json={"plan": PLANS[asked], "account": account, "period": PERIOD},
        )

    assert response.json()["total"] == {"before": "0.0021", "after": AFTER[asked]}
    assert len(statements) == 1
    read = [each for each in await accesses(database, statements) if each.table == "usage_events"]
    assert {each.kind for each in read} in ({"range", "eq_ref"}, set())
    of_one_account = account is not None or asked == "in order"  # only Ada's order counts
    index = "ix_usage_events_account_time" if of_one_account else "PRIMARY"
    assert {each.key for each in read if each.kind == "range"} in ({index}, set())


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"plan": "missing", "period": PERIOD}, 404),
        ({"plan": LOCAL_PLAN_ID, "period": "2026-13"}, 422),
        ({"plan": LOCAL_PLAN_ID, "period": "9999-12"}, 422),
        ({"plan": DOUBLED | {"currency": "EUR"}, "account": ADA, "period": PERIOD}, 422),
        ({"plan": DOUBLED | {"currency": "ZZZ"}, "period": PERIOD}, 422),
        ({"period": PERIOD}, 422),
    ],
)
async def test_a_wrong_request_is_refused(
    client: AsyncClient, admin: Headers, database: Database, body: Json, status: int
) -> None:
    await use(database, 1)

    response = await client.post("/plans/preview", headers=admin, json=body)

    assert response.status_code == status


@pytest.mark.any_database
async def test_only_an_administrator_may(client: AsyncClient, issuer: Issuer) -> None:
    ada = issuer.headers("usage:read", "billing:manage", account=ADA)

    response = await client.post(
        "/plans/preview", headers=ada, json={"plan": DOUBLED, "period": PERIOD}
    )

    assert response.status_code == 403
