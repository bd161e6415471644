"""Leases: the terms under which a process may serve an account."""

from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import TypeAdapter
from sqlalchemy import update

from harness.issuer import Headers
from harness.plans import plan, price
from harness.usage_events import ADA, BOB, JOURNAL, assign_plan, deliver, event
from services.billing.ledger import leases
from services.billing.ledger.accounts import add_accounts
from services.billing.ledger.terms import find_terms
from services.billing.models import Plan
from services.billing.plans.schemas import PlanCreate
from services.common.contracts import LeaseTerms
from services.common.db.database import Database
from tests.integration.billing.conftest import OpenApp, browse
from tests.integration.billing.test_plans import OWN, store


def request(account: str = ADA, **members: Any) -> dict[str, Any]:
    return {"account": account, "journal": JOURNAL, "sequence": 1, **members}


async def lease(
    client: AsyncClient, headers: Headers, *requests: dict[str, Any]
) -> list[LeaseTerms]:
    answer = await client.post("/leases", headers=headers, json=list(requests))
    assert answer.status_code == 200, answer.text
    return TypeAdapter(list[LeaseTerms]).validate_python(answer.json())


async def test_an_account_without_its_own_plan_gets_the_default_plans_terms(
    client: AsyncClient, service: Headers
) -> None:
    (terms,) = await lease(
        client, service, request(spent="0", minimum="0.5", desired="1", demand=3)
    )

    (price,) = terms.prices
    assert (terms.account, terms.status, terms.billing) == (ADA, "ok", "postpaid")
    assert (terms.currency, terms.granted, terms.rate_limit) == ("USD", "0", None)
    assert (price.model, price.per_request, price.per_row) == (None, "0.0005", "0.0001")


async def test_leases_come_in_the_order_of_the_requests(
    client: AsyncClient, service: Headers
) -> None:
    terms = await lease(client, service, request(BOB), request(ADA), request(BOB, sequence=2))

    assert [each.account for each in terms] == [BOB, ADA, BOB]


async def test_prices_are_those_of_the_tier_the_account_has_reached(
    client: AsyncClient, service: Headers, admin: Headers
) -> None:
    plan_id = await store(client, admin, OWN)
    await client.put(f"/accounts/{ADA}/plan", headers=admin, json={"plan": plan_id})
    seen = []

    for delivered in (0, 2, 8):
        await deliver(client, service, [event() for _ in range(delivered)])
        (terms,) = await lease(client, service, request())
        own = terms.prices[0]
        seen.append((own.model, own.per_request, own.per_row))

    assert seen == [("wine", "0", "0"), ("wine", "0.5", "0.1"), ("wine", "0.25", "0")]
    assert terms.rate_limit is not None
    assert (terms.rate_limit.per_second, terms.rate_limit.burst) == (2.5, 10)
    assert [price.model for price in terms.prices] == ["wine", None]


async def test_an_event_costs_the_price_in_its_lease(
    client: AsyncClient, service: Headers, ada: Headers
) -> None:
    (terms,) = await lease(client, service, request())

    await deliver(client, service, [event(id="e", price_id=terms.prices[0].price_id)])

    receipt = (await client.get("/usage/events/e", headers=ada)).json()
    assert receipt["amount"] == "0.0006"


async def test_a_lease_fixes_the_currency_so_that_what_is_served_under_it_is_billed(
    client: AsyncClient, service: Headers, admin: Headers, ada: Headers
) -> None:
    (terms,) = await lease(client, service, request())
    euro = await store(client, admin, plan(currency="EUR"))

    refused = await client.put(f"/accounts/{ADA}/plan", headers=admin, json={"plan": euro})
    await deliver(client, service, [event(id="e", price_id=terms.prices[0].price_id)])

    assert refused.status_code == 409
    assert (await client.get("/usage/events/e", headers=ada)).json()["amount"] == "0.0006"


@pytest.mark.any_database
async def test_without_any_plan_the_status_is_no_plan(
    app: FastAPI, open_app: OpenApp, service: Headers
) -> None:
    async with open_app(default_plan=None) as bare, browse(bare) as client:
        (terms,) = await lease(client, service, request())

    assert (terms.status, terms.prices, terms.currency) == ("no_plan", [], None)


async def test_a_default_plan_in_another_currency_than_the_accounts_is_no_plan(
    client: AsyncClient, open_app: OpenApp, service: Headers
) -> None:
    await deliver(client, service, [event()])
    euro = PlanCreate.model_validate(plan(currency="EUR"))

    async with open_app(default_plan=euro) as fresh, browse(fresh) as later:
        charged, new = await lease(later, service, request(ADA), request(BOB))

    assert (charged.status, new.status, new.currency) == ("no_plan", "ok", "EUR")


async def test_a_currency_fixed_meanwhile_does_not_affect_other_accounts(
    client: AsyncClient, database: Database, service: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find_then_fix_another_currency(*arguments: Any, **members: Any) -> Any:
        found = await find_terms(*arguments, **members)
        async with database.transaction() as session:
            await add_accounts(session, currencies={ADA: "EUR"}, now=datetime.now(UTC))
        return found

    monkeypatch.setattr(leases, "find_terms", find_then_fix_another_currency)

    overtaken, other = await lease(client, service, request(ADA), request(BOB))

    assert (overtaken.status, overtaken.prices) == ("no_plan", [])
    assert (other.status, other.currency) == ("ok", "USD")


@pytest.mark.parametrize("per_second", [5e-324, 1e-7, 1e300])
async def test_a_stored_rate_limit_out_of_bounds_is_clamped(
    client: AsyncClient,
    database: Database,
    service: Headers,
    admin: Headers,
    per_second: float,
) -> None:
    await assign_plan(client, admin, OWN)
    async with database.transaction() as session:
        await session.execute(
            update(Plan)
            .where(Plan.rate_per_second.is_not(None))
            .values(rate_per_second=per_second, rate_burst=per_second)
        )

    limited, other = await lease(client, service, request(ADA), request(BOB))
    shown = (await client.get("/plans", headers=admin)).json()["plans"][1]

    assert limited.rate_limit is not None
    assert limited.rate_limit.per_second == (1e6 if per_second > 1 else 1e-6)
    assert shown["rate_limit"]["per_second"] == limited.rate_limit.per_second
    assert other.status == "ok"


async def test_every_process_gets_a_share_even_of_the_smallest_limit(
    client: AsyncClient, service: Headers, admin: Headers
) -> None:
    await assign_plan(client, admin, plan(rate_limit={"per_second": 1e-6, "burst": 1}))
    journals = [f"{n:08x}-0000-7000-8000-000000000000" for n in range(3)]

    (least, *_) = [
        (await lease(client, service, request(journal=journal, demand=demand)))[0]
        for journal, demand in zip(journals, (0, 1e9, 1e9), strict=True)
    ]
    (later,) = await lease(client, service, request(journal=journals[0], sequence=2))

    assert least.rate_limit is not None
    assert later.rate_limit is not None
    assert 0 < later.rate_limit.per_second < least.rate_limit.per_second == 1e-6


async def test_a_new_prepaid_account_has_no_credit(
    client: AsyncClient, service: Headers, admin: Headers
) -> None:
    plan_id = await store(client, admin, plan(billing="prepaid"))
    await client.put(f"/accounts/{ADA}/plan", headers=admin, json={"plan": plan_id})

    (terms,) = await lease(client, service, request(desired="1"))

    assert (terms.status, terms.billing, terms.granted) == ("no_credit", "prepaid", "0")


@pytest.mark.any_database
@pytest.mark.parametrize(
    "requests",
    [
        {},
        [{"account": ADA}],
        [request("someone")],
        [request(sequence=0)],
        [request(sequence="1")],
        [request(spent=1)],
        [request(spent="1e9")],
        [request(surprise=1)],
        [request()] * 1001,
    ],
)
async def test_invalid_requests_are_422(
    client: AsyncClient, service: Headers, requests: Any
) -> None:
    answer = await client.post("/leases", headers=service, json=requests)

    assert answer.status_code == 422


@pytest.mark.any_database
class TestVersionBefore:
    """During an upgrade, inference of the version before calls this billing."""

    @staticmethod
    def former(journal: str, **members: Any) -> dict[str, Any]:
        return {"account": ADA, "journal": journal, "ask_no": 1, **members}

    async def test_its_field_names_are_accepted_and_its_status_is_returned(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await assign_plan(client, admin, plan(billing="prepaid"))
        credit = {"amount": "1", "currency": "USD", "reason": "A test."}
        headers = admin | {"Idempotency-Key": "k"}
        await client.post(f"/accounts/{ADA}/credits", headers=headers, json=credit)
        former = [
            self.former(JOURNAL, at_least="0.1", want="0.9"),
            self.former("0198b000-0000-7000-8000-000000000002", at_least="0.2", want="0.3"),
        ]

        response = await client.post("/leases", headers=service, json=former)

        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        [granted, refused] = response.json()
        assert (granted["status"], granted["granted"]) == ("ok", "0.9")
        assert (refused["status"], refused["retry_after"]) == ("held_elsewhere", 1)
        [current] = await lease(client, service, request(sequence=2, spent="0.9", minimum="0.2"))
        assert (current.status, current.granted) == ("no_credit", "0.9")

    async def test_both_versions_get_the_same_members(
        self, client: AsyncClient, service: Headers
    ) -> None:
        former = await client.post("/leases", headers=service, json=[self.former(JOURNAL)])
        current = await client.post("/leases", headers=service, json=[request()])

        assert former.json() == current.json()

    async def test_names_of_both_versions_in_one_request_are_422(
        self, client: AsyncClient, service: Headers
    ) -> None:
        response = await client.post("/leases", headers=service, json=[request(ask_no=1)])

        assert response.status_code == 422


async def test_one_call_takes_a_thousand_accounts(client: AsyncClient, service: Headers) -> None:
    accounts = [f"{n:08x}-0000-7000-8000-000000000000" for n in range(1000)]

    terms = await lease(client, service, *(request(account) for account in accounts))

    assert [each.account for each in terms] == accounts


@pytest.mark.any_database
async def test_only_services_may_request_leases(client: AsyncClient, ada: Headers) -> None:
    assert (await client.post("/leases", content=b"{")).status_code == 401
    assert (await client.post("/leases", headers=ada, content=b"{")).status_code == 403


async def test_explanations_have_a_price_of_their_own_in_leases_events_and_usage(
    client: AsyncClient, service: Headers, admin: Headers, ada: Headers
) -> None:
    explained = price((None, "0.002", "0.001"), model="wine:explain")
    predicted = price((None, "0.0005", "0.0001"), model="wine")
    await assign_plan(client, admin, plan(predicted, explained))
    (terms,) = await lease(client, service, request())
    ids = {each.model: each.price_id for each in terms.prices}

    result = await deliver(
        client, service, [event(model=str(name), price_id=own) for name, own in ids.items()]
    )
    usage = await client.get("/usage", headers=ada, params={"group_by": "model"})

    assert set(ids) == {"wine", "wine:explain"}
    assert result["accepted"] == 2
    assert usage.json()["buckets"] == [
        {"key": "wine", "requests": 1, "rows": 1, "amount": "0.0006"},
        {"key": "wine:explain", "requests": 1, "rows": 1, "amount": "0.003"},
    ]
