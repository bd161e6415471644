"""Credit notes: never more than the invoice, numbered without gaps, posted and refunded."""

import asyncio

import pytest
from httpx import AsyncClient, Response

from harness.issuer import Headers, Issuer
from harness.usage_events import ADA, BOB, Json
from services.billing.verify import verify
from services.common.db.database import Database
from tests.integration.billing.money import money
from tests.integration.billing.months import BOOKS, only_invoice, store_profile, use, use_prepaid
from tests.integration.billing.tampering import cells, unnoticed_changes


@pytest.fixture
async def invoice(database: Database) -> str:
    """Return the id of an invoice of two lines, 10 and 20 USD."""
    await use(database, 100_000, model="iris")
    await use(database, 200_000)
    return (await only_invoice(database)).id


async def give_back(
    client: AsyncClient, admin: Headers, invoice: str, *, key: str = "one", **body: object
) -> Response:
    return await client.post(
        f"/invoices/{invoice}/credit-notes",
        headers={**admin, "Idempotency-Key": key},
        json={"reason": "An error.", **body},
    )


@pytest.mark.costly
async def test_an_amount_some_lines_and_the_rest(
    client: AsyncClient, admin: Headers, database: Database, invoice: str
) -> None:
    notes = [
        await give_back(client, admin, invoice, key="1", amount="1.5"),
        await give_back(client, admin, invoice, key="2", lines=[0]),
        await give_back(client, admin, invoice, key="3", lines=[{"line": 1, "amount": "2"}]),
        await give_back(client, admin, invoice, key="4"),
    ]

    assert [note.status_code for note in notes] == [201] * 4
    read = [note.json() for note in notes]
    assert [note["number"] for note in read] == [f"CN-{n:06d}" for n in range(1, 5)]
    assert [note["amount"] for note in read] == ["1.5", "10", "2", "16.5"]
    assert read[1]["lines"] == [{"line": 0, "amount": "10"}]
    assert read[1]["invoice"] == invoice
    listed = await client.get(f"/invoices/{invoice}/credit-notes", headers=admin)
    assert listed.json()["credit_notes"] == read
    assert await verify(database) == []


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"amount": "30.01"}, 409),
        ({"lines": [{"line": 0, "amount": "10.01"}]}, 409),
        ({"amount": "0.001"}, 422),
        ({"amount": "0"}, 422),
        ({"amount": "-1"}, 422),
        ({"lines": [2]}, 422),
        ({"lines": [0, 0]}, 422),
        ({"lines": []}, 422),
        ({"amount": "1", "lines": [0]}, 422),
        ({"reason": ""}, 422),
        ({"unknown": 1}, 422),
    ],
)
async def test_a_wrong_one_changes_nothing(
    client: AsyncClient,
    admin: Headers,
    database: Database,
    invoice: str,
    body: Json,
    status: int,
) -> None:
    response = await give_back(client, admin, invoice, **body)

    assert response.status_code == status, response.text
    listed = await client.get(f"/invoices/{invoice}/credit-notes", headers=admin)
    assert listed.json() == {"credit_notes": []}
    first = await give_back(client, admin, invoice, key="two")
    assert first.json()["number"] == "CN-000001"
    assert await verify(database) == []


async def test_a_line_is_given_back_once(client: AsyncClient, admin: Headers, invoice: str) -> None:
    first = await give_back(client, admin, invoice, key="1", lines=[0])
    again = await give_back(client, admin, invoice, key="2", lines=[0])

    assert (first.status_code, again.status_code) == (201, 409)


async def test_a_repeat_returns_the_first(
    client: AsyncClient, admin: Headers, invoice: str
) -> None:
    first = await give_back(client, admin, invoice, amount="1")
    again = await give_back(client, admin, invoice, amount="1")
    other = await give_back(client, admin, invoice, amount="2")

    assert first.json() == again.json()
    assert other.status_code == 422


@pytest.mark.costly
async def test_notes_at_once_never_exceed_the_invoice(
    client: AsyncClient, admin: Headers, database: Database, invoice: str
) -> None:
    responses = await asyncio.gather(
        *(give_back(client, admin, invoice, key=str(n), amount="11") for n in range(5))
    )

    assert sorted(each.status_code for each in responses) == [201, 201, 409, 409, 409]
    assert await verify(database) == []


async def test_tax_is_part_of_it(client: AsyncClient, admin: Headers, database: Database) -> None:
    await store_profile(database)
    await use(database, 1_000_000)
    taxed = await only_invoice(database, books=BOOKS)

    note = await give_back(client, admin, taxed.id, lines=[0])

    assert note.json()["amount"] == "119"
    assert await verify(database) == []


async def test_what_was_paid_from_the_balance_returns_there(
    client: AsyncClient, admin: Headers, database: Database
) -> None:
    await use_prepaid(database)
    invoice = await only_invoice(database)

    note = await give_back(client, admin, invoice.id, amount="0.1")
    too_much = await give_back(client, admin, invoice.id, key="two", amount="0.21")

    assert (note.status_code, too_much.status_code) == (201, 409)
    assert await money(database) == (10**9 - 2 * 10**8, 0)
    assert await verify(database) == []


@pytest.mark.any_database
async def test_who_may(client: AsyncClient, admin: Headers, issuer: Issuer, invoice: str) -> None:
    ada = issuer.headers("usage:read", "billing:manage", account=ADA)
    bob = issuer.headers("usage:read", account=BOB)

    by_ada = await give_back(client, ada, invoice)
    of_bob = await client.get(f"/invoices/{invoice}/credit-notes", headers=bob)
    missing = await give_back(client, admin, "missing")

    assert (by_ada.status_code, of_bob.status_code, missing.status_code) == (403, 404, 404)


async def test_an_unknown_invoice_is_404_even_with_an_invalid_body_and_no_key(
    client: AsyncClient, admin: Headers, invoice: str
) -> None:
    invalid = await give_back(client, admin, "missing", amount=5)
    without_key = await client.post("/invoices/missing/credit-notes", headers=admin)
    existing = await client.post(f"/invoices/{invoice}/credit-notes", headers=admin)

    assert (invalid.status_code, without_key.status_code) == (404, 404)
    assert existing.json()["type"].endswith(":idempotency_key_missing")


@pytest.mark.costly
@pytest.mark.any_database
async def test_any_changed_cell_is_found(
    client: AsyncClient, admin: Headers, database: Database, invoice: str
) -> None:
    await give_back(client, admin, invoice, lines=[0])

    unnoticed = await unnoticed_changes(database, cells("credit_notes"))

    assert unnoticed == []
    assert await verify(database) == []
