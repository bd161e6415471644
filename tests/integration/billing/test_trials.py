"""Trial credit: once per account, used before other credit, and taken back when it expires."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import select

from harness.issuer import Headers, Issuer
from harness.usage_events import ADA
from services.billing.models import Credit
from services.billing.plans import subscriptions, trials
from services.billing.plans.schemas import PlanCreate
from services.billing.plans.service import plan_ids, store_plan
from services.billing.plans.subscriptions import CreditLeft
from services.billing.verify import verify
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from tests.integration.billing.fees import store_fee_plan, subscribe
from tests.integration.billing.money import (
    NOON,
    credit,
    lease,
    money,
    prepaid_plan,
    request,
    spent,
    take,
)
from tests.integration.billing.months import LOCAL_PLAN_ID
from tests.integration.billing.tampering import cells, unnoticed_changes
from tests.integration.billing.test_adjustments import adjust
from tests.integration.billing.test_plans import store

DAY = timedelta(days=1)
TRIAL = prepaid_plan().model_dump(mode="json") | {
    "name": "Try it",
    "public": True,
    "trial_credit": {"amount": "0.1", "days": 14},
}
TRIAL_ID, (TRIAL_PRICE_ID,) = plan_ids(PlanCreate.model_validate(TRIAL))
TENTH = 10**8


@pytest.fixture
async def plan_id(database: Database) -> str:
    wanted = PlanCreate.model_validate(TRIAL)
    await in_transaction(database, lambda session: store_plan(session, plan=wanted, now=NOON))
    return TRIAL_ID


async def assign(database: Database, plan_id: str, starts: datetime, *, now: datetime) -> None:
    await in_transaction(
        database,
        lambda session: subscriptions.assign_plan(
            session, account=ADA, plan_id=plan_id, effective_from=starts, now=now
        ),
    )


async def use(database: Database, rows: int, *, now: datetime) -> None:
    result = await take(
        database, [spent(rows, time=now, price_id=TRIAL_PRICE_ID)], now=now, plan_id=LOCAL_PLAN_ID
    )
    assert result.accepted == 1


async def credits(database: Database) -> list[tuple[int, str]]:
    async with database.snapshot() as session:
        found = await session.scalars(select(Credit).order_by(Credit.id))
        return [(each.amount, each.reason) for each in found]


async def test_it_is_granted_with_the_plan_and_shown(
    client: AsyncClient, admin: Headers, issuer: Issuer, database: Database
) -> None:
    buyer = issuer.headers("usage:read", "billing:manage", account=ADA)
    trial = await store(client, admin, TRIAL)

    answer = await client.put("/subscription", headers=buyer, json={"plan": trial})
    again = await client.put("/subscription", headers=buyer, json={"plan": trial})

    shown = answer.json()
    until = datetime.fromisoformat(shown["since"]) + 14 * DAY
    assert shown["trial"]["amount"] == "0.1"
    assert datetime.fromisoformat(shown["trial"]["expires_at"]) == until
    assert again.json() == shown
    balance = (await client.get("/balance", headers=buyer)).json()
    assert (balance["balance"], balance["currency"]) == ("0.1", "USD")
    listed = (await client.get("/plans")).json()["plans"]
    assert [each["trial_credit"] for each in listed] == [None, {"amount": "0.1", "days": 14}]
    assert await verify(database) == []


@pytest.mark.parametrize(
    "trial",
    [
        {"amount": "0", "days": 14},
        {"amount": "-1", "days": 14},
        {"amount": "1", "days": 0},
        {"amount": "1", "days": 367},
        {"amount": "1", "days": "14"},
        {"amount": "1"},
        {"amount": "1", "days": 14, "more": 1},
        "1",
    ],
)
async def test_an_invalid_one_is_422(client: AsyncClient, admin: Headers, trial: Any) -> None:
    answer = await client.post("/plans", headers=admin, json=TRIAL | {"trial_credit": trial})

    assert answer.status_code == 422


async def test_a_postpaid_plan_has_none(client: AsyncClient, admin: Headers) -> None:
    answer = await client.post("/plans", headers=admin, json=TRIAL | {"billing": "postpaid"})
    without = await client.post("/plans", headers=admin, json=TRIAL | {"trial_credit": None})

    assert "uses no balance" in answer.json()["errors"][0]["msg"]
    assert (answer.status_code, without.status_code) == (422, 201)


async def test_what_is_left_expires_and_other_credit_stays(
    database: Database, plan_id: str
) -> None:
    await subscribe(database, plan_id, NOON)
    await credit(database, 7)
    await use(database, 60_000_000, now=NOON + DAY)

    await trials.apply(database, now=NOON + 14 * DAY - timedelta(seconds=1))
    before = await money(database)
    for _ in range(2):
        await trials.apply(database, now=NOON + 14 * DAY)

    assert before == (40_000_007, 0)
    assert await money(database) == (7, 0)
    assert (await credits(database))[-1] == (-40_000_000, "Trial credit has expired.")
    assert len(await credits(database)) == 3
    assert await verify(database) == []


async def test_it_is_used_before_other_credit(database: Database, plan_id: str) -> None:
    await subscribe(database, plan_id, NOON)
    await credit(database, 500)
    await use(database, TENTH, now=NOON + DAY)

    await trials.apply(database, now=NOON + 30 * DAY)

    assert await money(database) == (500, 0)
    assert len(await credits(database)) == 2
    assert await verify(database) == []


async def test_usage_that_is_taken_back_returns_to_it(
    client: AsyncClient, admin: Headers, database: Database, plan_id: str
) -> None:
    await subscribe(database, plan_id, NOON)
    await credit(database, 500)
    await use(database, 60_000_000, now=NOON + DAY)
    await use(database, 10_000_000, now=NOON + DAY)
    events = await adjust(
        client, admin, filter={"account": ADA, "to": (NOON + 2 * DAY).isoformat()}
    )
    assert events.status_code == 201

    await trials.apply(database, now=NOON + 14 * DAY)

    assert await money(database) == (500, 0)
    assert (await credits(database))[-1] == (-TENTH, "Trial credit has expired.")
    assert await verify(database) == []


async def test_what_a_process_holds_expires_when_it_comes_back(
    database: Database, plan_id: str
) -> None:
    later = NOON + 14 * DAY
    await subscribe(database, plan_id, NOON)
    (terms,) = await lease(
        database, request(1, minimum=TENTH - 30), now=later, plan_id=LOCAL_PLAN_ID
    )
    assert terms.status == "ok"

    await trials.apply(database, now=later)
    held = await money(database)
    await lease(database, request(2, spent=10, release=True), now=later, plan_id=LOCAL_PLAN_ID)
    await trials.apply(database, now=later + timedelta(minutes=2))

    assert held == (0, TENTH - 30)
    assert await money(database) == (0, 10)
    assert await verify(database) == []


async def test_an_account_gets_it_once(database: Database, plan_id: str) -> None:
    await subscribe(database, plan_id, NOON)
    await trials.apply(database, now=NOON + 20 * DAY)
    other = PlanCreate.model_validate(TRIAL | {"name": "Try again"})
    await in_transaction(database, lambda session: store_plan(session, plan=other, now=NOON))

    await subscribe(database, LOCAL_PLAN_ID, NOON + 21 * DAY)
    await subscribe(database, plan_ids(other)[0], NOON + 22 * DAY)
    await subscribe(database, plan_id, NOON + 23 * DAY)

    assert await money(database) == (0, 0)


async def test_a_planned_plan_grants_it_when_it_begins(database: Database, plan_id: str) -> None:
    await assign(database, plan_id, NOON + 3 * DAY, now=NOON)
    await trials.apply(database, now=NOON + 2 * DAY)
    before = await money(database)

    await trials.apply(database, now=NOON + 3 * DAY)
    during = await money(database)
    await trials.apply(database, now=NOON + 17 * DAY)

    assert (before, during, await money(database)) == ((0, 0), (TENTH, 0), (0, 0))
    assert await verify(database) == []


async def test_a_planned_plan_that_is_replaced_grants_nothing(
    database: Database, plan_id: str
) -> None:
    team = await store_fee_plan(database)
    await assign(database, plan_id, NOON + 3 * DAY, now=NOON)
    await assign(database, team, NOON + 3 * DAY, now=NOON)
    await trials.apply(database, now=NOON + 4 * DAY)
    by_seller = await money(database)

    await assign(database, plan_id, NOON + 6 * DAY, now=NOON + 5 * DAY)
    await subscribe(database, LOCAL_PLAN_ID, NOON + 5 * DAY)
    await trials.apply(database, now=NOON + 7 * DAY)

    assert (by_seller, await money(database)) == ((0, 0), (0, 0))


class TestLeaving:
    async def test_a_postpaid_plan_ends_it(self, database: Database, plan_id: str) -> None:
        await subscribe(database, plan_id, NOON)
        await use(database, 10, now=NOON + DAY)

        await subscribe(database, LOCAL_PLAN_ID, NOON + 2 * DAY)

        assert await money(database) == (0, 0)
        assert await verify(database) == []

    async def test_a_change_that_is_refused_keeps_it(
        self, database: Database, plan_id: str
    ) -> None:
        await subscribe(database, plan_id, NOON)
        await credit(database, TENTH)

        with pytest.raises(CreditLeft):
            await subscribe(database, LOCAL_PLAN_ID, NOON + 2 * DAY)

        assert await money(database) == (2 * TENTH, 0)
        assert await verify(database) == []


@pytest.mark.costly
async def test_any_changed_amount_is_found(database: Database, plan_id: str) -> None:
    await subscribe(database, plan_id, NOON)
    await use(database, 10, now=NOON + DAY)
    await trials.apply(database, now=NOON + 20 * DAY)

    changes = [
        (table, column)
        for table, column in cells("trials")
        if column in ("account", "amount", "amount_high", "expired", "expired_high", "granted")
    ]

    assert await unnoticed_changes(database, changes, naming="trials") == []
    assert await verify(database) == []
