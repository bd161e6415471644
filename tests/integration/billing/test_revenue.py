"""`/revenue`: what all accounts were charged in a month."""

import pytest
from httpx import AsyncClient

from harness.issuer import Headers
from harness.plans import plan, price
from harness.usage_events import ADA, BOB, event
from services.billing.corrections import recalls
from services.billing.corrections.recalls import RecallCreate
from services.billing.plans.schemas import PlanCreate
from services.billing.plans.service import plan_ids, store_plan
from services.billing.usage import revenue
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from tests.integration.billing.months import AFTER, DURING, PERIOD, deliver, use

CAROL = "0198a000-0000-7000-8000-0000000000ca"
IN_EUROS = PlanCreate.model_validate(plan(price((None, "0.25", "0")), currency="EUR"))


async def pay_in_euros(database: Database, account: str) -> None:
    await in_transaction(database, lambda session: store_plan(session, plan=IN_EUROS, now=DURING))
    _, (price_id,) = plan_ids(IN_EUROS)
    paid = event(account=account, time=DURING, price_id=price_id)
    await deliver(database, [paid], now=DURING)


@pytest.fixture
async def sold(database: Database) -> Database:
    """Ada's two requests and Bob's one in dollars, Carol's in euros; and one in another month."""
    await use(database, 1, 3)
    await use(database, 1, account=BOB)
    await use(database, 1, account=BOB, time=AFTER)
    await pay_in_euros(database, CAROL)
    return database


async def test_it_is_summed_by_currency(
    sold: Database, client: AsyncClient, admin: Headers
) -> None:
    answer = await client.get("/revenue", params={"period": PERIOD}, headers=admin)

    assert answer.json() == {
        "period": PERIOD,
        "currencies": [
            {
                "currency": "EUR",
                "revenue": "0.25",
                "requests": 1,
                "rows": 1,
                "accounts": 1,
                "largest": [{"account": CAROL, "revenue": "0.25"}],
            },
            {
                "currency": "USD",
                "revenue": "0.002",
                "requests": 3,
                "rows": 5,
                "accounts": 2,
                "largest": [
                    {"account": ADA, "revenue": "0.0014"},
                    {"account": BOB, "revenue": "0.0006"},
                ],
            },
        ],
    }


async def test_what_was_taken_back_is_no_revenue(sold: Database) -> None:
    recall = RecallCreate(model="wine", version="20261122t000000z-0a1b2c3d", reason="Wrong.")
    await in_transaction(
        sold, lambda session: recalls.create(session, recall=recall, by="a test", now=DURING)
    )
    await recalls.apply(sold, now=DURING)

    async with sold.snapshot() as session:
        read = await revenue.read_revenue(session, period=PERIOD)

    assert [(each.currency, each.revenue, each.requests) for each in read.currencies] == [
        ("EUR", "0", 1),
        ("USD", "0", 3),
    ]


@pytest.mark.any_database
@pytest.mark.parametrize("period", ["2026-13", "now", "2026"])
async def test_an_invalid_month_is_rejected(
    client: AsyncClient, admin: Headers, period: str
) -> None:
    answer = await client.get("/revenue", params={"period": period}, headers=admin)

    assert answer.status_code == 422


async def test_a_month_without_usage_has_no_currencies(client: AsyncClient, admin: Headers) -> None:
    answer = await client.get("/revenue", headers=admin)

    assert answer.json()["currencies"] == []
