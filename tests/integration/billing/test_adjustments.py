"""Adjustments: named events are taken back once, in open and in invoiced months."""

import asyncio

import pytest
from httpx import AsyncClient, Response

from harness.issuer import Headers, Issuer
from harness.usage_events import ADA, BOB, Json
from services.billing.corrections import adjustments, selecting
from services.billing.verify import verify
from services.common.db.database import Database
from tests.integration.billing.money import credit, money, spent, store_prepaid, take
from tests.integration.billing.months import BOOKS, DURING, only_invoice, store_profile, use
from tests.integration.billing.tampering import changed_cell


async def adjust(
    client: AsyncClient, admin: Headers, *, key: str = "one", **body: object
) -> Response:
    return await client.post(
        "/adjustments",
        headers={**admin, "Idempotency-Key": key},
        json={"reason": "An error.", **body},
    )


@pytest.mark.costly
async def test_prepaid_charges_return_to_the_balance(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await store_prepaid(database)
    await credit(database, 100)
    events = [spent(20, 1), spent(30, 2)]
    await take(database, events)

    response = await adjust(client, admin, events=[events[0]["id"]])

    assert response.status_code == 201
    assert response.json() | {"id": ""} == {
        "id": "",
        "events": 1,
        "skipped": 0,
        "amount": "0.00000002",
    }
    assert await money(database) == (70, 0)
    assert await verify(database) == []


async def test_an_open_month_is_reduced(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use(database, 100_000, 200_000)
    await use(database, 400_000, model="iris")

    adjusted = await adjust(client, admin, filter={"account": ADA, "model": "wine"})
    invoice = await only_invoice(database)

    assert (adjusted.json()["events"], adjusted.json()["amount"]) == (2, "30.001")
    assert [each.amount for each in invoice.credits] == ["30"]
    assert (invoice.subtotal, invoice.total) == ("70", "40")
    assert await verify(database) == []


async def test_an_invoiced_month_gets_a_credit_note(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await store_profile(database)
    events = await use(database, 100_000, 200_000)
    invoice = await only_invoice(database, books=BOOKS)

    adjusted = await adjust(client, admin, events=[events[0]["id"]])

    assert adjusted.json()["amount"] == "10.0005"
    notes = (await client.get(f"/invoices/{invoice.id}/credit-notes", headers=admin)).json()
    assert [each["amount"] for each in notes["credit_notes"]] == ["11.9"]
    assert await verify(database) == []


async def test_less_than_a_cent_of_an_invoiced_month_has_no_credit_note(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    events = await use(database, 1)
    invoice = await only_invoice(database)

    adjusted = await adjust(client, admin, events=[events[0]["id"]])

    assert adjusted.json()["amount"] == "0.0006"
    notes = (await client.get(f"/invoices/{invoice.id}/credit-notes", headers=admin)).json()
    assert notes == {"credit_notes": []}
    assert await verify(database) == []


async def test_events_adjusted_before_are_skipped(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    first, second = await use(database, 10, 20)
    await adjust(client, admin, key="1", events=[first["id"]])

    both = await adjust(client, admin, key="2", events=[first["id"], second["id"]])
    none = await adjust(client, admin, key="3", events=[first["id"], second["id"]])

    assert (both.json()["events"], both.json()["skipped"]) == (1, 1)
    assert none.status_code == 409
    assert await verify(database) == []


async def test_adjustments_at_once_take_each_event_back_once(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use(database, *range(1, 20))

    responses = await asyncio.gather(
        *(adjust(client, admin, key=str(n), filter={"account": ADA}) for n in range(4))
    )

    assert sorted(each.status_code for each in responses) == [201, 409, 409, 409]
    assert await verify(database) == []


async def test_a_filter_is_read_in_parts(
    client: AsyncClient, admin: Headers, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "STRETCH_EVENTS", 3)
    monkeypatch.setattr(adjustments, "MAX_EVENTS", 5)
    await use(database, *range(1, 12), model="iris")
    await use(database, *range(1, 6))

    too_many = await adjust(client, admin, key="1", filter={"account": ADA})
    adjusted = await adjust(client, admin, key="1", filter={"account": ADA, "model": "wine"})

    assert (too_many.status_code, adjusted.json()["events"]) == (422, 5)
    assert await verify(database) == []


@pytest.mark.any_database
async def test_a_filter_has_a_window(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use(database, 1)
    window = {"from": DURING.isoformat(), "to": DURING.isoformat()}

    nothing = await adjust(client, admin, key="1", filter={"account": ADA, **window})
    other = await adjust(client, admin, key="2", filter={"account": BOB})
    all_ = await adjust(client, admin, key="3", filter={"account": ADA, "from": DURING.isoformat()})

    assert [each.status_code for each in (nothing, other, all_)] == [409, 409, 201]


@pytest.mark.any_database
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"events": []},
        {"events": ["é"]},
        {"filter": {"model": "wine"}},
        {"filter": {"account": ADA}, "events": ["x"]},
        {"filter": {"account": ADA, "from": "yesterday"}},
    ],
)
async def test_a_wrong_one_changes_nothing(
    client: AsyncClient, admin: Headers, database: Database, body: Json
) -> None:
    await use(database, 1)

    response = await adjust(client, admin, **body)

    assert response.status_code == 422
    assert (await adjust(client, admin, key="2", filter={"account": ADA})).json()["skipped"] == 0


@pytest.mark.any_database
async def test_only_an_administrator_may(client: AsyncClient, issuer: Issuer) -> None:
    ada = issuer.headers("usage:read", "billing:manage", account=ADA)

    assert (await adjust(client, ada, filter={"account": ADA})).status_code == 403


async def test_a_changed_reversal_is_found(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use(database, 1000)
    await adjust(client, admin, filter={"account": ADA})

    async with changed_cell(database, "event_reversals", "amount"):
        differences = await verify(database)

    assert any(each.startswith("corrections: ") for each in differences)
