"""Plans: what using the models costs, and which account is on which plan."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from harness.issuer import Headers, Issuer
from harness.plans import LOCAL_PLAN, plan, price
from harness.usage_events import ADA, BOB, deliver, event
from services.billing.plans.schemas import PlanCreate
from tests.integration.billing.conftest import OpenApp, browse

OWN = plan(
    price((10, "0.5", "0.1"), (None, "0.25", "0"), included=2, model="wine"),
    price((None, "1", "0")),
    name="Ada’s plan – 🍷",
    rate_limit={"per_second": 2.5, "burst": 10.0},
    description="For Ada’s own models – and\nfor no other. 🍷",
    monthly_fee="999999999999.999999999",
)


async def store(client: AsyncClient, admin: Headers, wanted: dict[str, Any]) -> str:
    answer = await client.post("/plans", headers=admin, json=wanted)
    assert answer.status_code == 201, answer.text
    plan_id: str = answer.json()["id"]
    return plan_id


async def seen_by(client: AsyncClient, headers: Headers) -> list[dict[str, Any]]:
    answer = await client.get("/plans", headers=headers)
    assert answer.status_code == 200, answer.text
    plans: list[dict[str, Any]] = answer.json()["plans"]
    return plans


@pytest.mark.any_database
class TestCreate:
    async def test_a_plan_is_stored_and_shown_as_given(
        self, client: AsyncClient, admin: Headers
    ) -> None:
        plan_id = await store(client, admin, OWN)

        plans = await seen_by(client, admin)

        (shown,) = [each for each in plans if each["id"] == plan_id]
        assert len({price.pop("id") for price in shown["prices"]}) == 2
        other = {"public": False, "default": False, "current": False}
        assert shown.pop("trial_credit") is None
        assert shown == OWN | {"id": plan_id} | other

    async def test_the_same_plan_twice_is_one_plan(
        self, client: AsyncClient, admin: Headers
    ) -> None:
        ids = await asyncio.gather(*(store(client, admin, OWN) for _ in range(8)))

        assert len(set(ids)) == 1
        assert len(await seen_by(client, admin)) == 2  # with the default plan

    async def test_an_invalid_plan_is_422_and_not_echoed(
        self, client: AsyncClient, admin: Headers
    ) -> None:
        answer = await client.post("/plans", headers=admin, json=plan(billing="hunter2"))

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["body", "billing"]
        assert "hunter2" not in answer.text

    @pytest.mark.parametrize("per_second", [0, 5e-324, 9e-7, 1.1e6, "1e-400", "1", True])
    async def test_a_rate_limit_out_of_bounds_is_422(
        self, client: AsyncClient, admin: Headers, per_second: Any
    ) -> None:
        limit = {"per_second": per_second, "burst": 10}

        answer = await client.post("/plans", headers=admin, json=plan(rate_limit=limit))

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["body", "rate_limit", "per_second"]

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", '"nan"', '"inf"'])
    async def test_a_rate_limit_that_is_not_finite_is_422(
        self, client: AsyncClient, admin: Headers, number: str
    ) -> None:
        body = json.dumps(plan(rate_limit={"per_second": 7, "burst": 10}))

        for part in ("7", "10"):
            answer = await client.post(
                "/plans",
                headers=admin | {"Content-Type": "application/json"},
                content=body.replace(f": {part}", f": {number}"),
            )

            assert answer.status_code == 422

    async def test_a_price_that_is_too_large_is_422_with_the_limit(
        self, client: AsyncClient, admin: Headers
    ) -> None:
        largest = plan(price((None, "1000000000000", "1000000000000")))
        larger = plan(price((None, "0", "1000000000000.000000001")))

        await store(client, admin, largest)
        answer = await client.post("/plans", headers=admin, json=larger)

        assert answer.status_code == 422
        error = answer.json()["errors"][0]
        assert error["loc"] == ["body", "prices", 0, "tiers", 0, "per_row"]
        assert error["msg"].endswith("must be at most 1000000000000")

    async def test_a_plan_without_newer_terms_has_the_id_that_it_had_before(
        self, client: AsyncClient, admin: Headers
    ) -> None:
        plain = await store(client, admin, plan(name="Plain"))

        given = await store(
            client,
            admin,
            plan(name="Plain", public=False, description="", monthly_fee="0", trial_credit=None),
        )
        others = [
            await store(client, admin, plan(name="Plain", **newer))
            for newer in ({"description": "New."}, {"monthly_fee": "1"}, {"monthly_fee": "2"})
        ]

        assert given == plain
        assert len({plain, *others}) == 4

    @pytest.mark.parametrize(
        ("members", "text"),
        [
            ({"monthly_fee": "-1"}, "greater than or equal to 0"),
            ({"monthly_fee": 1}, "decimal string"),
            ({"monthly_fee": "0.0000000001"}, "decimal"),
            ({"monthly_fee": "1e3"}, "decimal"),
            ({"monthly_fee": "1000000000000.1"}, "at most 1000000000000"),
            ({"monthly_fee": None}, "decimal string"),
            ({"description": "x" * 501}, "at most 500 characters"),
            ({"description": None}, "valid string"),
            ({"billing": "prepaid", "monthly_fee": "1"}, "a prepaid plan must have no monthly_fee"),
            ({"trial": "1"}, "Extra inputs"),
        ],
    )
    async def test_invalid_terms_are_422_and_store_nothing(
        self, client: AsyncClient, admin: Headers, members: dict[str, Any], text: str
    ) -> None:
        answer = await client.post("/plans", headers=admin, json=plan(**members))

        assert answer.status_code == 422
        assert text in answer.json()["errors"][0]["msg"]
        assert len(await seen_by(client, admin)) == 1

    async def test_only_administrators_may_create_plans(
        self, client: AsyncClient, ada: Headers
    ) -> None:
        assert (await client.post("/plans", content=b"{")).status_code == 401
        assert (await client.post("/plans", headers=ada, content=b"{")).status_code == 403


class TestList:
    async def test_everyone_sees_public_plans_and_the_default_one(
        self, client: AsyncClient, admin: Headers, ada: Headers, service: Headers
    ) -> None:
        await store(client, admin, plan(name="Ada's own"))
        await store(client, admin, plan(name="For all", public=True))

        shown = [await seen_by(client, headers) for headers in ({}, ada, service)]

        for plans in shown:
            assert [(each["name"], each["public"], each["default"]) for each in plans] == [
                ("Local", True, True),
                ("For all", True, False),
            ]

    async def test_an_administrator_sees_all_of_them(
        self, client: AsyncClient, admin: Headers
    ) -> None:
        await store(client, admin, plan(name="Ada's own"))

        plans = await seen_by(client, admin)

        assert [(each["name"], each["public"]) for each in plans] == [
            ("Local", True),
            ("Ada's own", False),
        ]

    async def test_an_account_sees_its_current_and_upcoming_plans(
        self, client: AsyncClient, admin: Headers, ada: Headers, issuer: Issuer
    ) -> None:
        soon = datetime.now(UTC) + timedelta(days=1)
        for name, members in (
            ("Left", {}),
            ("On", {}),
            ("Next", {"effective_from": soon.isoformat()}),
        ):
            plan_id = await store(client, admin, plan(name=name))
            body = {"plan": plan_id} | members
            put = await client.put(f"/accounts/{ADA}/plan", headers=admin, json=body)
            assert put.status_code == 200

        own = await seen_by(client, ada)
        others = await seen_by(client, issuer.headers("usage:read", account=BOB))

        assert [(each["name"], each["current"]) for each in own] == [
            ("Local", False),
            ("On", True),
            ("Next", False),
        ]
        assert [(each["name"], each["current"]) for each in others] == [("Local", True)]

    @pytest.mark.any_database
    async def test_an_invalid_token_is_401(self, client: AsyncClient) -> None:
        answer = await client.get("/plans", headers={"Authorization": "Bearer no.such.token"})

        assert answer.status_code == 401

    async def test_a_public_plan_differs_from_a_private_one_with_the_same_terms(
        self, client: AsyncClient, admin: Headers
    ) -> None:
        private = await store(client, admin, plan(name="Two"))
        public = await store(client, admin, plan(name="Two", public=True))

        assert private != public
        assert private == await store(client, admin, plan(name="Two", public=False))


class TestAssign:
    async def test_an_account_pays_by_its_plan_from_then_on(
        self, client: AsyncClient, service: Headers, admin: Headers, ada: Headers
    ) -> None:
        before = event(model="iris")
        plan_id = await store(client, admin, OWN)
        put = await client.put(f"/accounts/{ADA}/plan", headers=admin, json={"plan": plan_id})
        after = event(model="iris")

        await deliver(client, service, [after, before])

        assert (put.status_code, put.json()["plan"]) == (200, plan_id)
        amounts = [
            (await client.get(f"/usage/events/{e['id']}", headers=ada)).json()["amount"]
            for e in (before, after)
        ]
        assert amounts == ["0.0006", "1"]

    async def test_of_two_plans_from_the_same_moment_the_later_assignment_counts(
        self, client: AsyncClient, service: Headers, admin: Headers, ada: Headers
    ) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=60)
        for amount in ("1", "2"):
            plan_id = await store(client, admin, plan(price((None, amount, "0"))))
            await client.put(
                f"/accounts/{ADA}/plan",
                headers=admin,
                json={"plan": plan_id, "effective_from": soon.isoformat()},
            )

        await deliver(client, service, [event(time=soon, id="then"), event(id="now")])

        receipt = await client.get("/usage/events/then", headers=ada)
        assert receipt.json()["amount"] == "2"
        assert (await client.get("/usage/events/now", headers=ada)).json()["amount"] == "0.0006"

    @pytest.mark.any_database
    async def test_a_start_in_the_past_is_422(self, client: AsyncClient, admin: Headers) -> None:
        plan_id = await store(client, admin, OWN)
        past = datetime.now(UTC) - timedelta(seconds=1)

        answer = await client.put(
            f"/accounts/{ADA}/plan",
            headers=admin,
            json={"plan": plan_id, "effective_from": past.isoformat()},
        )

        assert answer.status_code == 422

    async def test_a_plan_in_another_currency_than_the_accounts_is_409(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await deliver(client, service, [event()])
        plan_id = await store(client, admin, plan(currency="EUR"))

        charged = await client.put(f"/accounts/{ADA}/plan", headers=admin, json={"plan": plan_id})
        new = await client.put(f"/accounts/{BOB}/plan", headers=admin, json={"plan": plan_id})

        assert (charged.status_code, new.status_code) == (409, 200)

    @pytest.mark.any_database
    @pytest.mark.parametrize(("wanted", "status"), [("unknown", 404), ("é", 422), (1, 422)])
    async def test_an_unknown_plan_is_404_and_an_invalid_id_422(
        self, client: AsyncClient, admin: Headers, wanted: Any, status: int
    ) -> None:
        answer = await client.put(f"/accounts/{ADA}/plan", headers=admin, json={"plan": wanted})

        assert answer.status_code == status

    @pytest.mark.any_database
    async def test_an_invalid_account_is_422(self, client: AsyncClient, admin: Headers) -> None:
        answer = await client.put("/accounts/ada/plan", headers=admin, json={"plan": "p"})

        assert answer.status_code == 422

    @pytest.mark.any_database
    async def test_only_administrators_may_assign_plans(
        self, client: AsyncClient, ada: Headers
    ) -> None:
        path = f"/accounts/{ADA}/plan"

        assert (await client.put(path, content=b"{")).status_code == 401
        assert (await client.put(path, headers=ada, content=b"{")).status_code == 403


class TestDefault:
    @pytest.mark.costly
    async def test_processes_that_start_at_once_store_it_once(
        self, app: FastAPI, open_app: OpenApp, admin: Headers
    ) -> None:
        changed = PlanCreate.model_validate(LOCAL_PLAN | {"name": "Changed"})

        async def start() -> list[dict[str, Any]]:
            async with open_app(default_plan=changed) as fresh, browse(fresh) as client:
                return await seen_by(client, admin)

        seen = await asyncio.gather(*(start() for _ in range(6)))

        assert all(plans == seen[0] for plans in seen)
        assert sorted(each["name"] for each in seen[0]) == ["Changed", "Local"]

    async def test_changing_it_never_reprices_what_was_served(
        self, client: AsyncClient, open_app: OpenApp, service: Headers, ada: Headers
    ) -> None:
        first = event()
        await deliver(client, service, [first])
        dearer = PlanCreate.model_validate(plan(price((None, "7", "0"))))

        async with open_app(default_plan=dearer) as fresh, browse(fresh) as later:
            repeat = await deliver(later, service, [first, event(time="1970-01-01T00:00:00Z")])
            old = await later.get(f"/usage/events/{first['id']}", headers=ada)
            window = {"from": "1970-01-01T00:00:00Z"}
            usage = await later.get("/usage", headers=ada, params=window)

        assert (repeat["duplicates"], repeat["accepted"]) == (1, 1)
        assert old.json()["amount"] == "0.0006"
        assert usage.json()["total"]["amount"] == "7.0006"
