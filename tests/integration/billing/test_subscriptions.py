"""Subscriptions: which plan an account is on, and what it may change by itself."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy import select

from harness.issuer import Headers, Issuer
from harness.plans import plan, price
from harness.usage_events import ADA, BOB, Json, deliver, event
from services.billing.models import AccountPlan
from services.billing.plans.schemas import PlanCreate
from services.billing.verify import verify
from services.common.db.database import Database
from tests.integration.billing.conftest import OpenApp, browse
from tests.integration.billing.fees import cancel, fee_plan, store_fee_plan, subscribe
from tests.integration.billing.money import credit, money, new_id, prepaid_plan, request
from tests.integration.billing.money import lease as take_lease
from tests.integration.billing.months import LOCAL_PLAN_ID, close
from tests.integration.billing.test_leases import lease
from tests.integration.billing.test_leases import request as lease_request
from tests.integration.billing.test_plans import seen_by, store

PREPAID = prepaid_plan().model_dump(mode="json") | {"public": True}


@pytest.fixture
def buyer(issuer: Issuer) -> Headers:
    """The headers of Ada, who may manage her billing."""
    return issuer.headers("usage:read", "billing:manage", account=ADA)


@pytest.fixture
def seller(issuer: Issuer) -> Headers:
    """The headers of an administrator, who has every scope."""
    return issuer.headers("usage:read", "billing:manage", "admin", account=new_id())


async def put(client: AsyncClient, headers: Headers, plan_id: Any, **query: str) -> Response:
    return await client.put("/subscription", headers=headers, json={"plan": plan_id}, params=query)


async def read(client: AsyncClient, headers: Headers, **query: str) -> Json:
    answer = await client.get("/subscription", headers=headers, params=query)
    assert answer.status_code == 200, answer.text
    subscription: Json = answer.json()
    return subscription


async def rows(database: Database) -> int:
    async with database.snapshot() as session:
        return len(list(await session.scalars(select(AccountPlan))))


class TestRead:
    async def test_an_account_without_its_own_plan_is_on_the_default_one(
        self, client: AsyncClient, buyer: Headers
    ) -> None:
        assert await read(client, buyer) == {
            "account": ADA,
            "plan": LOCAL_PLAN_ID,
            "name": "Local",
            "description": "",
            "currency": "USD",
            "billing": "postpaid",
            "monthly_fee": "0",
            "default": True,
            "since": None,
            "next": None,
            "trial": None,
        }

    async def test_what_is_next_is_shown(
        self, client: AsyncClient, buyer: Headers, seller: Headers
    ) -> None:
        team = await store(client, seller, fee_plan("49.5", description="For teams."))
        soon = (datetime.now(UTC) + timedelta(days=3)).isoformat()
        for plan_id, members in ((LOCAL_PLAN_ID, {}), (team, {"effective_from": soon})):
            body = {"plan": plan_id} | members
            await client.put(f"/accounts/{ADA}/plan", headers=seller, json=body)

        own, other = await read(client, buyer), await read(client, seller, account=ADA)

        assert own == other
        assert (own["plan"], own["since"] is None) == (LOCAL_PLAN_ID, False)
        assert {**own["next"], "effective_from": soon} == {
            "plan": team,
            "name": "Team",
            "description": "For teams.",
            "currency": "USD",
            "billing": "postpaid",
            "monthly_fee": "49.5",
            "default": False,
            "effective_from": soon,
        }

    async def test_without_any_plan_it_is_404(
        self, open_app: OpenApp, app: FastAPI, buyer: Headers
    ) -> None:
        async with open_app(default_plan=None) as fresh, browse(fresh) as client:
            answer = await client.get("/subscription", headers=buyer)

        assert answer.status_code == 404
        assert answer.json()["type"].endswith("subscription_not_found")


class TestChange:
    async def test_prices_and_fee_are_those_of_the_plan_from_then_on(
        self, client: AsyncClient, buyer: Headers, seller: Headers, service: Headers
    ) -> None:
        dear = fee_plan("20", prices=[price((None, "3", "0"))])
        team = await store(client, seller, dear)
        before = event()
        started = datetime.now(UTC)

        answer = await put(client, buyer, team)

        assert answer.status_code == 200, answer.text
        assert answer.json() == await read(client, buyer)
        assert (answer.json()["plan"], answer.json()["monthly_fee"]) == (team, "20")
        assert datetime.fromisoformat(answer.json()["since"]) >= started
        await deliver(client, service, [before, event()])
        usage = await client.get("/usage", headers=buyer)
        assert usage.json()["total"]["amount"] == "3.0006"
        (terms,) = await lease(client, service, lease_request())
        assert terms.prices[0].per_request == "3"

    async def test_a_repeat_changes_nothing(
        self, client: AsyncClient, buyer: Headers, seller: Headers, database: Database
    ) -> None:
        team = await store(client, seller, fee_plan())

        first, again = await put(client, buyer, team), await put(client, buyer, team)

        assert first.json() == again.json()
        assert await rows(database) == 1

    async def test_it_replaces_what_was_planned_for_later(
        self, client: AsyncClient, buyer: Headers, seller: Headers
    ) -> None:
        team, other = [await store(client, seller, fee_plan(name=name)) for name in "AB"]
        soon = (datetime.now(UTC) + timedelta(days=3)).isoformat()
        body = {"plan": other, "effective_from": soon}
        await client.put(f"/accounts/{ADA}/plan", headers=seller, json=body)

        answer = await put(client, buyer, team)

        assert answer.json()["next"] is None
        assert [each["name"] for each in await seen_by(client, buyer)] == ["Local", "A", "B"]

    async def test_the_default_plan_may_be_chosen_like_a_cancellation(
        self, client: AsyncClient, buyer: Headers, seller: Headers
    ) -> None:
        await put(client, buyer, await store(client, seller, fee_plan()))

        answer = await put(client, buyer, LOCAL_PLAN_ID)

        assert (answer.json()["plan"], answer.json()["default"]) == (LOCAL_PLAN_ID, True)

    @pytest.mark.parametrize(
        ("wanted", "status"),
        [("unknown", 404), ("", 422), ("é", 422), (1, 422), (None, 422), ([], 422)],
    )
    async def test_an_unknown_plan_is_404_and_an_invalid_id_422(
        self, client: AsyncClient, buyer: Headers, database: Database, wanted: Any, status: int
    ) -> None:
        answer = await put(client, buyer, wanted)

        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert await rows(database) == 0

    @pytest.mark.parametrize("body", [b"{", b"[]", b"", b'{"plan": "p", "more": 1}', b"{}"])
    async def test_a_malformed_body_is_422(
        self, client: AsyncClient, buyer: Headers, body: bytes
    ) -> None:
        headers = buyer | {"Content-Type": "application/json"}

        answer = await client.put("/subscription", headers=headers, content=body)

        assert answer.status_code == 422
        assert (await read(client, buyer))["since"] is None

    async def test_a_plan_that_is_not_public_is_chosen_by_an_administrator_only(
        self, client: AsyncClient, buyer: Headers, seller: Headers
    ) -> None:
        private = await store(client, seller, plan(name="Private"))

        refused = await put(client, buyer, private)
        done = await put(client, seller, private, account=ADA)

        assert (refused.status_code, done.status_code) == (404, 200)
        assert (await read(client, buyer))["name"] == "Private"

    async def test_another_currency_is_409(
        self, client: AsyncClient, buyer: Headers, seller: Headers, service: Headers
    ) -> None:
        euros = await store(client, seller, fee_plan(currency="EUR"))
        await deliver(client, service, [event()])

        answer = await put(client, buyer, euros)

        assert answer.status_code == 409
        assert answer.json()["type"].endswith("currency_fixed")
        assert (await read(client, buyer))["plan"] == LOCAL_PLAN_ID

    async def test_a_fee_fixes_the_currency(
        self, client: AsyncClient, buyer: Headers, seller: Headers
    ) -> None:
        free, euros, dollars = [
            await store(client, seller, fee_plan(fee, currency=currency))
            for fee, currency in (("0", "EUR"), ("9", "EUR"), ("9", "USD"))
        ]

        answers = [await put(client, buyer, each) for each in (free, dollars, euros, free)]

        assert [answer.status_code for answer in answers] == [200, 200, 409, 409]

    @pytest.mark.costly
    async def test_changes_at_the_same_time_leave_the_account_on_one_of_the_plans(
        self, client: AsyncClient, buyer: Headers, seller: Headers, database: Database
    ) -> None:
        plans = [await store(client, seller, fee_plan(name=name)) for name in "ABCD"]

        answers = await asyncio.gather(
            *(put(client, buyer, each) for each in plans),
            *(client.delete("/subscription", headers=buyer) for _ in range(4)),
        )

        assert {answer.status_code for answer in answers} == {200, 204}
        subscription = await read(client, buyer)
        assert subscription["plan"] in (*plans, LOCAL_PLAN_ID)
        assert subscription["next"] is None
        assert await verify(database) == []

    async def test_who_may_not(
        self, client: AsyncClient, ada: Headers, buyer: Headers, seller: Headers
    ) -> None:
        for method in ("GET", "PUT", "DELETE"):
            answers = [
                await client.request(method, "/subscription", headers=headers, params=query)
                for headers, query in (
                    ({}, {}),
                    (ada, {}),
                    (buyer, {"account": BOB}),
                    (seller, {"account": "bob"}),
                )
            ]
            assert [answer.status_code for answer in answers] == [401, 403, 403, 422]


class TestCancel:
    async def test_the_account_is_on_the_default_plan_at_once(
        self, client: AsyncClient, buyer: Headers, seller: Headers, service: Headers
    ) -> None:
        team = await store(client, seller, fee_plan(prices=[price((None, "3", "0"))]))
        soon = (datetime.now(UTC) + timedelta(days=3)).isoformat()
        await put(client, buyer, team)
        body = {"plan": team, "effective_from": soon}
        await client.put(f"/accounts/{ADA}/plan", headers=seller, json=body)

        answers = [await client.delete("/subscription", headers=buyer) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [204, 204]
        subscription = await read(client, buyer)
        assert (subscription["default"], subscription["next"]) == (True, None)
        (terms,) = await lease(client, service, lease_request())
        assert terms.prices[0].per_request == "0.0005"
        await deliver(client, service, [event()])
        assert (await client.get("/usage", headers=buyer)).json()["total"]["amount"] == "0.0006"

    async def test_an_account_without_its_own_plan_stays_as_it_is(
        self, client: AsyncClient, buyer: Headers, database: Database
    ) -> None:
        answer = await client.delete("/subscription", headers=buyer)

        assert (answer.status_code, await rows(database)) == (204, 0)

    async def test_an_account_that_cancelled_follows_the_default_plan(
        self,
        client: AsyncClient,
        open_app: OpenApp,
        buyer: Headers,
        seller: Headers,
        service: Headers,
    ) -> None:
        await put(client, buyer, await store(client, seller, fee_plan()))
        await client.delete("/subscription", headers=buyer)
        changed = PlanCreate.model_validate(plan(price((None, "8", "0")), name="Changed"))

        async with open_app(default_plan=changed) as fresh, browse(fresh) as later:
            subscription = await read(later, buyer)
            (terms,) = await lease(later, service, lease_request())

        assert (subscription["name"], subscription["default"]) == ("Changed", True)
        assert terms.prices[0].per_request == "8"

    async def test_without_a_default_plan_the_account_has_none(
        self, app: FastAPI, open_app: OpenApp, buyer: Headers, seller: Headers, service: Headers
    ) -> None:
        async with open_app(default_plan=None) as fresh, browse(fresh) as client:
            await put(client, buyer, await store(client, seller, fee_plan()))

            cancelled = await client.delete("/subscription", headers=buyer)

            assert cancelled.status_code == 204
            assert (await client.get("/subscription", headers=buyer)).status_code == 404
            (terms,) = await lease(client, service, lease_request())
            assert terms.status == "no_plan"
            plans = await seen_by(client, buyer)
            assert [each["name"] for each in plans] == ["Team"]


class TestCredit:
    """No change leaves prepaid credit where no plan uses it."""

    async def test_a_postpaid_plan_is_refused_while_credit_is_left(
        self, client: AsyncClient, buyer: Headers, seller: Headers, database: Database
    ) -> None:
        await put(client, buyer, await store(client, seller, PREPAID))
        await credit(database, 10**7)
        team = await store(client, seller, fee_plan())

        answers = [
            await put(client, buyer, team),
            await client.delete("/subscription", headers=buyer),
        ]

        assert [answer.status_code for answer in answers] == [409, 409]
        assert answers[0].json()["type"].endswith("credit_left")
        assert "0.01 USD" in answers[0].json()["detail"]
        assert (await read(client, buyer))["billing"] == "prepaid"

    async def test_credit_that_a_process_holds_counts(
        self, client: AsyncClient, buyer: Headers, seller: Headers, database: Database
    ) -> None:
        prepaid = await store(client, seller, PREPAID)
        await put(client, buyer, prepaid)
        await credit(database, 5)
        now = datetime.now(UTC) + timedelta(seconds=1)
        await take_lease(database, request(1, minimum=5), now=now, plan_id=LOCAL_PLAN_ID)

        answer = await put(client, buyer, LOCAL_PLAN_ID)

        assert await money(database) == (0, 5)
        assert answer.status_code == 409

    async def test_less_than_a_minor_unit_may_stay(
        self, client: AsyncClient, buyer: Headers, seller: Headers, database: Database
    ) -> None:
        await put(client, buyer, await store(client, seller, PREPAID))
        await credit(database, 10**7 - 1)

        answer = await put(client, buyer, LOCAL_PLAN_ID)

        assert answer.status_code == 200
        assert await money(database) == (10**7 - 1, 0)
        assert await verify(database) == []

    async def test_a_prepaid_plan_may_follow_a_postpaid_one_and_another_prepaid_one(
        self, client: AsyncClient, buyer: Headers, seller: Headers, database: Database
    ) -> None:
        one = await store(client, seller, PREPAID)
        other = await store(client, seller, PREPAID | {"name": "Other"})
        await credit(database, 10**9)

        answers = [await put(client, buyer, each) for each in (one, other)]

        assert [answer.status_code for answer in answers] == [200, 200]


async def test_an_upcoming_plan_of_a_closed_month_stays(database: Database) -> None:
    team = await store_fee_plan(database)
    await subscribe(database, team, "2026-10-31T23:59:50")
    await close(database, now=datetime(2026, 11, 1, tzinfo=UTC))

    await cancel(database, "2026-10-31T23:59:40")

    assert await rows(database) == 2
    assert await verify(database) == []
