"""Another organisation's id in a path is 404, on every route of every service that takes an id.

Auth issues the tokens, and billing verifies them; the ids in the paths exist.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr

from harness.every_service import create_every_app
from harness.plans import LOCAL_PLAN
from harness.usage_events import deliver, event, total, used
from services.auth.app import MIGRATIONS as AUTH_MIGRATIONS
from services.auth.app import create_app as create_auth
from services.auth.clients.credentials import ensure_service_client
from services.auth.settings import AuthSettings
from services.billing.app import create_app as create_billing
from services.billing.database import MIGRATIONS as BILLING_MIGRATIONS
from services.billing.plans.schemas import PlanCreate
from services.billing.settings import BillingSettings
from services.common.db.database import Database
from services.common.db.migrations import migrate
from tests.integration.auth.conftest import CHEAP_KIB, ISSUER, Headers, bearer
from tests.integration.auth.organisations.people import Person, sign_up
from tests.integration.billing.months import only_invoice, use

SERVICE = ("inference", "a secret with 256 random bits")

OWNED: dict[tuple[str, str, str], Any] = {
    ("auth", "POST", "/api-keys/{id}/rotate"): None,
    ("auth", "DELETE", "/api-keys/{id}"): None,
    ("auth", "DELETE", "/clients/{client_id}"): None,
    ("auth", "GET", "/organisations/{id}/members"): None,
    ("auth", "PUT", "/organisations/{id}/members"): {"email": "eve@example.com", "role": "owner"},
    ("auth", "DELETE", "/organisations/{id}/members/{user_id}"): None,
    ("billing", "GET", "/usage/events/{id}"): None,
    ("billing", "GET", "/invoices/{id}"): None,
    ("billing", "GET", "/invoices/{id}/credit-notes"): None,
}
"""The routes that take the id of something that belongs to an account, and a valid body."""
RESERVED = {
    ("auth", "DELETE", "/account-notes/{id}"): {},
    ("auth", "PATCH", "/users/{user_id}"): {"disabled": True},
    ("billing", "PUT", "/accounts/{account}/plan"): {"plan": "any"},
    ("billing", "POST", "/accounts/{account}/credits"): {"amount": "1", "currency": "USD"},
    ("billing", "POST", "/invoices/{id}/credit-notes"): {"reason": "any"},
    ("billing", "PUT", "/sources/{journal}"): {"last": 1, "closed": True},
}
"""Those that only administrators and services may call; for everyone else the scope, which is
checked first, is missing (403)."""
SHARED = {"model", "version", "provider"}
"""The parameters that name what is the same for all accounts."""


@dataclass(frozen=True)
class World:
    """Two organisations: Ada owns one, Eve the other; what the paths name is Ada's."""

    apps: dict[str, FastAPI]
    ada: Person
    eve: Person
    organisation: str
    other: str
    ids: dict[str, dict[str, str]]
    """The values of path parameters, by the beginning of the path."""

    async def call(
        self, route: tuple[str, str, str], headers: Headers, body: Any
    ) -> httpx.Response:
        service, method, path = route
        values = self.ids[path.split("/")[1]]
        transport = ASGITransport(self.apps[service])
        async with AsyncClient(transport=transport, base_url="http://service") as client:
            extra = {"Idempotency-Key": str(uuid.uuid4())}
            return await client.request(
                method, path.format_map(values), headers=headers | extra, json=body
            )


@pytest.fixture(scope="module")
async def world(
    new_database_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    home = tmp_path_factory.mktemp("accounts")
    urls = [SecretStr(new_database_url("sqlite")) for _ in range(2)]
    for url, scripts in zip(urls, (AUTH_MIGRATIONS, BILLING_MIGRATIONS), strict=True):
        await asyncio.to_thread(migrate, url.get_secret_value(), scripts)
    auth = create_auth(
        AuthSettings(home=home, issuer=ISSUER, database_url=urls[0]),
        password_memory_kib=CHEAP_KIB,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(auth.router.lifespan_context(auth))
        billing = create_billing(
            BillingSettings(
                home=home,
                auth_url=ISSUER,
                database_url=urls[1],
                default_plan=PlanCreate.model_validate(LOCAL_PLAN),
            ),
            keys=auth.state.issuer.keys,
        )
        await stack.enter_async_context(billing.router.lifespan_context(billing))
        client = await stack.enter_async_context(
            AsyncClient(transport=ASGITransport(auth), base_url=ISSUER)
        )
        yield await _populate(client, {"auth": auth, "billing": billing})


async def _populate(client: AsyncClient, apps: dict[str, FastAPI]) -> World:
    ada = await sign_up(client, "ada@example.com")
    eve = await sign_up(client, "eve@example.com")
    organisation, other = await ada.create_organisation(), await eve.create_organisation("Other")
    as_ada = await ada.acting_for(organisation)
    key = (await client.post("/api-keys", json={"name": "x"}, headers=as_ada)).json()
    job = (await client.post("/clients", json={"name": "x"}, headers=as_ada)).json()
    database: Database = apps["auth"].state.database
    async with database.transaction() as session:
        await ensure_service_client(
            session, client_id=SERVICE[0], client_secret=SERVICE[1], scope="billing:write"
        )
    form = {"grant_type": "client_credentials"}
    as_service = bearer(
        (await client.post("/token", data=form, auth=SERVICE)).json()["access_token"]
    )
    books: Database = apps["billing"].state.database
    await use(books, 1, account=organisation)
    invoice = await only_invoice(books)
    usage_event = event(account=organisation, rows=3)
    async with AsyncClient(
        transport=ASGITransport(apps["billing"]), base_url="http://billing"
    ) as billing:
        await deliver(billing, as_service, [usage_event])
    ids = {
        "api-keys": {"id": key["id"]},
        "clients": {"client_id": job["client_id"]},
        "organisations": {"id": organisation, "user_id": ada.id},
        "usage": {"id": usage_event["id"]},
        "invoices": {"id": invoice.id},
        "users": {"user_id": ada.id},
        "account-notes": {"id": str(uuid.uuid4())},
        "accounts": {"account": organisation},
        "sources": {"journal": str(uuid.uuid4())},
    }
    return World(apps, ada, eve, organisation, other, ids)


def test_every_route_that_takes_an_id_is_tried(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = set()
    for service, app in create_every_app(tmp_path_factory.mktemp("routes")).items():
        if service == "console":
            continue  # it has no data: it passes its visitor's token on to the APIs
        for route in iter_route_contexts(app.routes):
            if not isinstance(route.original_route, APIRoute):
                continue
            path = str(route.path_format)
            if not SHARED.issuperset(re.findall(r"{(\w+)}", path)):
                found |= {(service, method, path) for method in route.methods or ()}

    assert found == OWNED.keys() | RESERVED.keys()


@pytest.mark.parametrize("route", OWNED, ids=lambda route: "{} {}".format(*route[1:]))
async def test_another_organisations_id_does_not_exist(
    world: World, route: tuple[str, str, str]
) -> None:
    strangers = [world.eve.headers, await world.eve.acting_for(world.other)]

    answers = [
        await world.call(route, headers, body)
        for headers in strangers
        for body in (OWNED[route], ["not valid"])  # what exists is checked before the body
    ]

    for answer in answers:
        assert answer.status_code == 404, answer.text
        assert answer.json()["type"].endswith("not_found")


async def test_its_own_members_may_use_each_id(world: World) -> None:
    as_ada = await world.ada.acting_for(world.organisation)
    routes = [route for route in OWNED if route[1] in ("GET", "PUT")]

    answers = [await world.call(route, as_ada, OWNED[route]) for route in routes]

    assert [answer.status_code for answer in answers] == [200] * len(routes)
    await world.ada.remove(world.organisation, world.eve.id)


@pytest.mark.parametrize("route", RESERVED, ids=lambda route: "{} {}".format(*route[1:]))
async def test_what_is_reserved_lacks_the_scope(world: World, route: tuple[str, str, str]) -> None:
    callers = [await world.eve.acting_for(world.other)]
    callers.append(await world.ada.acting_for(world.organisation))

    answers = [await world.call(route, headers, RESERVED[route]) for headers in callers]

    assert [answer.status_code for answer in answers] == [403, 403]


async def test_a_strangers_attempt_is_recorded(world: World) -> None:
    noted = {each.target for each in world.apps["auth"].state.failures.take()}

    await world.call(("auth", "GET", "/organisations/{id}/members"), world.eve.headers, None)

    noted |= {each.target for each in world.apps["auth"].state.failures.take()}
    assert world.organisation in noted


async def test_usage_and_balance_of_an_organisation_are_read_with_its_token(world: World) -> None:
    transport = ASGITransport(world.apps["billing"])
    as_organisation = await world.ada.acting_for(world.organisation)
    async with AsyncClient(transport=transport, base_url="http://billing") as billing:
        usage = await total(billing, as_organisation)
        balance = await billing.get("/balance", headers=as_organisation)
        receipts = (await billing.get("/usage/events", headers=as_organisation)).json()["events"]
        personal = await total(billing, world.ada.headers)
        other = await billing.get(
            "/usage", headers=world.ada.headers, params={"account": world.organisation}
        )

    assert usage == used(1, 3, "0.0008")
    assert balance.json()["account"] == world.organisation
    assert receipts[0]["id"] == world.ids["usage"]["id"]
    assert personal == used(0, 0, "0")
    assert other.status_code == 403
