"""The fake billing of these tests answers as the real service does, wherever inference looks."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import httpx
import pytest
from pydantic import SecretStr

from harness.clients import PLAIN
from harness.issuer import ISSUER, Issuer
from harness.plans import LOCAL_PLAN
from services.billing.app import create_app
from services.billing.database import MIGRATIONS
from services.billing.plans.schemas import PlanCreate
from services.billing.settings import BillingSettings
from services.common.contracts import LeaseRequest, LeaseTerms, SourceReport
from services.common.db.migrations import migrate
from services.inference.catalogue.prices import PriceList, find_price
from services.inference.metering import events
from services.inference.metering.billing_client import BillingClient, BillingError
from tests.integration.inference.neighbours import Neighbours

BILLING, AUTH = "http://billing.test", "http://auth.test"
PREPAID_PLAN = LOCAL_PLAN | {"name": "Prepaid", "billing": "prepaid"}
PRICE = ("0.0005", "0.0001")
"""Per request and per row, on both sides."""


@dataclass(frozen=True)
class Billing:
    """Billing as inference calls it, and what a test needs besides."""

    client: BillingClient
    top_up: Callable[[str, str], Awaitable[None]]
    """Turns an account prepaid and gives it an amount."""
    bearer: Callable[[str, str], str]
    """Returns a token of an account with a scope."""

    async def lease(self, account: str, journal: str, sequence: int, **asked: object) -> LeaseTerms:
        request = {"account": account, "journal": journal, "sequence": sequence} | asked
        [terms] = await self.client.request_leases([LeaseRequest.model_validate(request)])
        return terms


def _client(http: httpx.AsyncClient) -> BillingClient:
    secret = SecretStr("secret")
    return BillingClient(
        http, billing_url=BILLING, auth_url=AUTH, client_id="inference", client_secret=secret
    )


@pytest.fixture
async def fake() -> AsyncIterator[Billing]:
    neighbours = Neighbours(url=AUTH)

    async def top_up(account: str, amount: str) -> None:
        neighbours.wallets.top_up(account, amount)

    def bearer(account: str, scope: str) -> str:
        return neighbours.token(account=account, scope=scope)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(neighbours.app())) as http:
        yield Billing(_client(http), top_up, bearer)


@pytest.fixture(scope="module")
async def real_transport(
    tmp_path_factory: pytest.TempPathFactory, new_database_url: Callable[[str], str]
) -> AsyncIterator[tuple[httpx.ASGITransport, Issuer]]:
    url, issuer = new_database_url("sqlite"), Issuer()
    await asyncio.to_thread(migrate, url, MIGRATIONS)
    settings = BillingSettings(
        home=tmp_path_factory.mktemp("billing"),
        auth_url=ISSUER,
        database_url=SecretStr(url),
        default_plan=PlanCreate.model_validate(LOCAL_PLAN),
    )
    app = create_app(settings, keys=issuer)
    async with app.router.lifespan_context(app):
        yield httpx.ASGITransport(app), issuer


@pytest.fixture
async def real(real_transport: tuple[httpx.ASGITransport, Issuer]) -> AsyncIterator[Billing]:
    app, issuer = real_transport

    def bearer(account: str, scope: str) -> str:
        headers = issuer.headers(*scope.split(), account=account)
        return headers["Authorization"].removeprefix("Bearer ")

    def grant(request: httpx.Request) -> httpx.Response:
        token = bearer("inference", "billing:write")
        granted = {"access_token": token, "token_type": "bearer", "expires_in": 3600}
        return httpx.Response(200, json=granted | {"scope": "billing:write"})

    mounts = {BILLING: app, AUTH: httpx.MockTransport(grant)}
    async with httpx.AsyncClient(mounts=mounts, verify=PLAIN) as http:

        async def top_up(account: str, amount: str) -> None:
            admin = issuer.headers("admin", account=str(uuid.uuid4()))
            stored = await http.post(f"{BILLING}/plans", json=PREPAID_PLAN, headers=admin)
            await http.put(
                f"{BILLING}/accounts/{account}/plan",
                json={"plan": stored.json()["id"]},
                headers=admin,
            )
            credited = await http.post(
                f"{BILLING}/accounts/{account}/credits",
                json={"amount": amount, "currency": "USD", "reason": "A test."},
                headers=admin | {"Idempotency-Key": str(uuid.uuid4())},
            )
            assert credited.status_code == 201, credited.text

        yield Billing(_client(http), top_up, bearer)


@pytest.mark.parametrize("kind", ["fake", "real"])
async def test_the_public_plans_name_the_default_one_and_its_price(
    kind: str, real_transport: tuple[httpx.ASGITransport, Issuer]
) -> None:
    app = real_transport[0] if kind == "real" else httpx.ASGITransport(Neighbours().app())
    async with httpx.AsyncClient(transport=app) as http:
        prices = PriceList(http, billing_url=BILLING)
        found = find_price(await prices.plans(), "wine")
        await prices.close()

    assert (found.status, found.currency, found.billing) == ("available", "USD", "postpaid")
    assert [(tier.per_request, tier.per_row) for tier in found.tiers or ()] == [PRICE]


@pytest.fixture(params=["fake", "real"])
def billing(request: pytest.FixtureRequest) -> Billing:
    chosen: Billing = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def journal() -> str:
    return str(uuid.uuid4())


def usage(account: str, journal: str, sequence: int, *, price_id: str, rows: int = 1) -> bytes:
    """Return a usage event as the shipper sends it."""
    event = events.encode(
        event_id=str(uuid.uuid4()),
        account=account,
        client_id="web",
        journal=journal,
        model="wine",
        version="v1",
        rows=rows,
        price_id=price_id,
        input_sha256="0" * 64,
        latency_ms=1.0,
        now=time.time(),
    )
    return events.with_sequence(event, sequence)


def id_of(event: bytes) -> str:
    return event.split(b'"id":"')[1].split(b'"')[0].decode()


class TestEvents:
    async def test_an_event_is_accepted_once_and_then_a_duplicate(
        self, billing: Billing, account: str, journal: str
    ) -> None:
        terms = await billing.lease(account, journal, 1)
        sent = [usage(account, journal, n, price_id=terms.prices[0].price_id) for n in (1, 2)]

        first = await billing.client.send_events(sent[:1])
        again = await billing.client.send_events(sent)

        assert (first.accepted, first.duplicates, first.conflicts, first.rejected) == (1, 0, 0, [])
        assert (again.accepted, again.duplicates, again.conflicts, again.rejected) == (1, 1, 0, [])

    async def test_a_charge_names_the_amount_and_the_price_of_the_lease(
        self, billing: Billing, account: str, journal: str
    ) -> None:
        terms = await billing.lease(account, journal, 1)
        event = usage(account, journal, 1, price_id=terms.prices[0].price_id, rows=3)
        before = await billing.client.find_charge(id_of(event))
        await billing.client.send_events([event])

        charge = await billing.client.find_charge(id_of(event))

        assert before is None
        assert charge is not None
        assert (charge.amount, charge.currency) == ("0.0008", "USD")
        assert charge.price_id == terms.prices[0].price_id

    async def test_a_receipt_is_for_its_account_and_needs_a_scope(
        self, billing: Billing, account: str, journal: str
    ) -> None:
        terms = await billing.lease(account, journal, 1)
        event = usage(account, journal, 1, price_id=terms.prices[0].price_id, rows=3)
        await billing.client.send_events([event])
        own, other = (
            billing.bearer(each, "predict usage:read") for each in (account, str(uuid.uuid4()))
        )

        receipt = await billing.client.find_receipt(id_of(event), bearer=own)
        elsewhere = await billing.client.find_receipt(id_of(event), bearer=other)
        bearer = billing.bearer(account, "predict")
        with pytest.raises(BillingError) as refusal:
            await billing.client.find_receipt(id_of(event), bearer=bearer)

        assert receipt is not None
        assert (receipt.model, receipt.version, receipt.rows) == ("wine", "v1", 3)
        assert elsewhere is None
        assert refusal.value.status == 403


class TestLeases:
    async def test_a_postpaid_account_gets_prices_and_no_credit(
        self, billing: Billing, account: str, journal: str
    ) -> None:
        terms = await billing.lease(account, journal, 1, desired="1", demand=5.0)

        assert (terms.status, terms.billing, terms.currency) == ("ok", "postpaid", "USD")
        assert (terms.granted, terms.rate_limit) == ("0", None)
        assert [(each.model, each.per_request, each.per_row) for each in terms.prices] == [
            (None, *PRICE)
        ]

    async def test_what_is_granted_adds_up_and_an_old_request_changes_nothing(
        self, billing: Billing, account: str, journal: str
    ) -> None:
        await billing.top_up(account, "1")

        asked = [
            await billing.lease(account, journal, 1, minimum="0.0006", desired="0.4"),
            await billing.lease(account, journal, 2, spent="0.1", desired="0.4"),
            await billing.lease(account, journal, 1, desired="0.9"),
            await billing.lease(account, journal, 3, spent="0.1", desired="0.9"),
            await billing.lease(account, journal, 4, spent="0.1", release=True),
        ]

        assert {(terms.status, terms.billing) for terms in asked} == {("ok", "prepaid")}
        # In the background, half of what is available at most.
        assert [terms.granted for terms in asked] == ["0.4", "0.5", "0.5", "0.75", "0.1"]

    async def test_too_little_credit_is_refused_and_gives_back_the_rest(
        self, billing: Billing, account: str, journal: str
    ) -> None:
        await billing.top_up(account, "1")
        await billing.lease(account, journal, 1, minimum="0.5", desired="0.5")

        refused = await billing.lease(account, journal, 2, spent="0.5", minimum="0.6")
        rest = await billing.lease(account, journal, 3, spent="0.5", minimum="0.5")

        assert (refused.status, refused.granted) == ("no_credit", "0.5")
        assert (rest.status, rest.granted) == ("ok", "1")

    async def test_credit_of_another_process_is_reserved_until_its_journal_is_closed(
        self, billing: Billing, account: str, journal: str
    ) -> None:
        await billing.top_up(account, "1")
        other = str(uuid.uuid4())
        terms = await billing.lease(account, other, 1, minimum="1")
        event = usage(account, other, 1, price_id=terms.prices[0].price_id)

        reserved = await billing.lease(account, journal, 1, minimum="0.9")
        await billing.client.send_events([event])
        await billing.client.report(other, SourceReport(last=1, closed=True))
        returned = await billing.lease(account, journal, 2, minimum="0.9994")

        assert (reserved.status, reserved.granted) == ("reserved_elsewhere", "0")
        assert reserved.retry_after is not None
        assert (returned.status, returned.granted) == ("ok", "0.9994")
        assert returned.retry_after is None

    async def test_an_account_without_money_has_no_credit(
        self, billing: Billing, account: str, journal: str
    ) -> None:
        await billing.top_up(account, "0.001")
        terms = await billing.lease(account, journal, 1, minimum="0.001")
        price_id = terms.prices[0].price_id
        await billing.client.send_events([usage(account, journal, 1, price_id=price_id, rows=5)])

        broke = await billing.lease(account, journal, 2, spent="0.001", minimum="0.0006")

        assert (broke.status, broke.granted) == ("no_credit", "0.001")
