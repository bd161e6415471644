"""Leases: the terms under which a process may answer an account's requests."""

from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import TypeAdapter
from sqlalchemy import update

from services.billing.accounts import add_accounts
from services.billing.leases import service as leases
from services.billing.leases.terms import find_terms
from services.billing.models import Plan
from services.billing.plans.schemas import PlanCreate
from services.common.contracts import LeaseTerms
from services.common.db import Database
from tests.billing.conftest import OpenApp, browse
from tests.billing.test_plans import OWN, store
from tests.billing.tokens import Headers
from tests.billing.wire import ADA, BOB, JOURNAL, deliver, event, give_plan, plan


def ask(account: str = ADA, **members: Any) -> dict[str, Any]:
    return {"account": account, "journal": JOURNAL, "ask_no": 1, **members}


async def lease(client: AsyncClient, headers: Headers, *asks: dict[str, Any]) -> list[LeaseTerms]:
    answer = await client.post("/leases", headers=headers, json=list(asks))
    assert answer.status_code == 200, answer.text
    return TypeAdapter(list[LeaseTerms]).validate_python(answer.json())


async def test_an_account_without_a_plan_of_its_own_has_the_default_plans_terms(
    client: AsyncClient, service: Headers
) -> None:
    (terms,) = await lease(client, service, ask(spent="0", at_least="0.5", want="1", demand=3))

    (price,) = terms.prices
    assert (terms.account, terms.status, terms.billing) == (ADA, "ok", "postpaid")
    assert (terms.currency, terms.granted, terms.rate_limit) == ("USD", "0", None)
    assert (price.model, price.per_request, price.per_row) == (None, "0.0005", "0.0001")


async def test_many_accounts_are_answered_in_the_order_of_the_asks(
    client: AsyncClient, service: Headers
) -> None:
    terms = await lease(client, service, ask(BOB), ask(ADA), ask(BOB, ask_no=2))

    assert [each.account for each in terms] == [BOB, ADA, BOB]


async def test_prices_are_those_of_the_tier_the_account_has_reached(
    client: AsyncClient, service: Headers, admin: Headers
) -> None:
    plan_id = await store(client, admin, OWN)
    await client.put(f"/accounts/{ADA}/plan", headers=admin, json={"plan": plan_id})
    seen = []

    for delivered in (0, 2, 8):
        await deliver(client, service, [event() for _ in range(delivered)])
        (terms,) = await lease(client, service, ask())
        own = terms.prices[0]
        seen.append((own.model, own.per_request, own.per_row))

    assert seen == [("wine", "0", "0"), ("wine", "0.5", "0.1"), ("wine", "0.25", "0")]
    assert terms.rate_limit is not None
    assert (terms.rate_limit.per_second, terms.rate_limit.burst) == (2.5, 10)
    assert [price.model for price in terms.prices] == ["wine", None]


async def test_a_price_told_by_a_lease_is_what_its_event_costs(
    client: AsyncClient, service: Headers, ada: Headers
) -> None:
    (terms,) = await lease(client, service, ask())

    await deliver(client, service, [event(id="e", price_id=terms.prices[0].price_id)])

    receipt = (await client.get("/usage/events/e", headers=ada)).json()
    assert receipt["amount"] == "0.0006"


async def test_terms_fix_the_currency_so_that_what_was_answered_under_them_is_billed(
    client: AsyncClient, service: Headers, admin: Headers, ada: Headers
) -> None:
    (terms,) = await lease(client, service, ask())
    euro = await store(client, admin, plan(currency="EUR"))

    refused = await client.put(f"/accounts/{ADA}/plan", headers=admin, json={"plan": euro})
    await deliver(client, service, [event(id="e", price_id=terms.prices[0].price_id)])

    assert refused.status_code == 409
    assert (await client.get("/usage/events/e", headers=ada)).json()["amount"] == "0.0006"


async def test_without_any_plan_there_are_no_terms(
    app: FastAPI, open_app: OpenApp, service: Headers
) -> None:
    async with open_app(default_plan=None) as bare, browse(bare) as client:
        (terms,) = await lease(client, service, ask())

    assert (terms.status, terms.prices, terms.currency) == ("no_plan", [], None)


async def test_a_default_plan_in_another_currency_than_was_charged_is_no_plan(
    client: AsyncClient, open_app: OpenApp, service: Headers
) -> None:
    await deliver(client, service, [event()])
    euro = PlanCreate.model_validate(plan(currency="EUR"))

    async with open_app(default_plan=euro) as fresh, browse(fresh) as later:
        charged, new = await lease(later, service, ask(ADA), ask(BOB))

    assert (charged.status, new.status, new.currency) == ("no_plan", "ok", "EUR")


async def test_a_currency_fixed_meanwhile_fails_no_other_account_of_the_call(
    client: AsyncClient, database: Database, service: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find_and_be_overtaken(*arguments: Any, **members: Any) -> Any:
        found = await find_terms(*arguments, **members)
        async with database.transaction() as session:
            await add_accounts(session, currencies={ADA: "EUR"}, now=datetime.now(UTC))
        return found

    monkeypatch.setattr(leases, "find_terms", find_and_be_overtaken)

    overtaken, other = await lease(client, service, ask(ADA), ask(BOB))

    assert (overtaken.status, overtaken.prices) == ("no_plan", [])
    assert (other.status, other.currency) == ("ok", "USD")


@pytest.mark.parametrize("per_second", [5e-324, 1e-7, 1e300])
async def test_a_rate_limit_out_of_bounds_that_was_stored_before_fails_no_call(
    client: AsyncClient,
    database: Database,
    service: Headers,
    admin: Headers,
    per_second: float,
) -> None:
    await give_plan(client, admin, OWN)
    async with database.transaction() as session:
        await session.execute(
            update(Plan)
            .where(Plan.rate_per_second.is_not(None))
            .values(rate_per_second=per_second, rate_burst=per_second)
        )

    limited, other = await lease(client, service, ask(ADA), ask(BOB))
    shown = (await client.get("/plans", headers=admin)).json()["plans"][1]

    assert limited.rate_limit is not None
    assert limited.rate_limit.per_second == (1e6 if per_second > 1 else 1e-6)
    assert shown["rate_limit"]["per_second"] == limited.rate_limit.per_second
    assert other.status == "ok"


async def test_of_the_smallest_limit_every_process_gets_a_share(
    client: AsyncClient, service: Headers, admin: Headers
) -> None:
    await give_plan(client, admin, plan(rate_limit={"per_second": 1e-6, "burst": 1}))
    journals = [f"{n:08x}-0000-7000-8000-000000000000" for n in range(3)]

    (least, *_) = [
        (await lease(client, service, ask(journal=journal, demand=demand)))[0]
        for journal, demand in zip(journals, (0, 1e9, 1e9), strict=True)
    ]
    (later,) = await lease(client, service, ask(journal=journals[0], ask_no=2))

    assert least.rate_limit is not None
    assert later.rate_limit is not None
    assert 0 < later.rate_limit.per_second < least.rate_limit.per_second == 1e-6


async def test_a_prepaid_account_has_no_credit_yet(
    client: AsyncClient, service: Headers, admin: Headers
) -> None:
    plan_id = await store(client, admin, plan(billing="prepaid"))
    await client.put(f"/accounts/{ADA}/plan", headers=admin, json={"plan": plan_id})

    (terms,) = await lease(client, service, ask(want="1"))

    assert (terms.status, terms.billing, terms.granted) == ("no_credit", "prepaid", "0")


@pytest.mark.parametrize(
    "asks",
    [
        {},
        [{"account": ADA}],
        [ask("someone")],
        [ask(ask_no=0)],
        [ask(ask_no="1")],
        [ask(spent=1)],
        [ask(spent="1e9")],
        [ask(surprise=1)],
        [ask()] * 1001,
    ],
)
async def test_asks_that_do_not_hold_are_422(
    client: AsyncClient, service: Headers, asks: Any
) -> None:
    answer = await client.post("/leases", headers=service, json=asks)

    assert answer.status_code == 422


async def test_a_thousand_accounts_are_answered_at_once(
    client: AsyncClient, service: Headers
) -> None:
    accounts = [f"{n:08x}-0000-7000-8000-000000000000" for n in range(1000)]

    terms = await lease(client, service, *(ask(account) for account in accounts))

    assert [each.account for each in terms] == accounts


async def test_anonymous_and_users_may_not(client: AsyncClient, ada: Headers) -> None:
    assert (await client.post("/leases", content=b"{")).status_code == 401
    assert (await client.post("/leases", headers=ada, content=b"{")).status_code == 403
