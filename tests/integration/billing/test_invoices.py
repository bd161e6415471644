"""Invoices over HTTP: who may read them, in which form, and what is refused."""

import csv
import io
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from lxml import etree
from pypdf import PdfReader

from harness.issuer import Headers, Issuer
from harness.usage_events import ADA, BOB, Json
from services.billing.invoices.closing import run
from services.billing.invoices.factur_x import as_xml
from services.billing.invoices.pdf import as_pdf
from services.common.db.database import Database
from tests.integration.billing.months import (
    AFTER,
    BOOKS,
    DURING,
    PERIOD,
    only_invoice,
    read_invoice,
    store_profile,
    use,
)

PROFILE = {
    "name": "Ada Ltd",
    "address": "1 Main Street",
    "country": "DE",
    "vat_id": "DE 136 695 976",
    "email": "ada@example.com",
}


@pytest.fixture
def buyer(issuer: Issuer) -> Headers:
    return issuer.headers("usage:read", "billing:manage", account=ADA)


@pytest.fixture
async def issued(database: Database) -> str:
    """Return the id of Ada's invoice of 123,456 rows."""
    await store_profile(database)
    await use(database, 123_456)
    return (await only_invoice(database, books=BOOKS)).id


class TestBillingRuns:
    async def test_a_run_returns_its_invoices(
        self, client: AsyncClient, admin: Headers, database: Database
    ) -> None:
        await use(database, 1_000_000)

        first = await client.post("/billing-runs", headers=admin, json={"period": PERIOD})
        again = await client.post("/billing-runs", headers=admin, json={"period": PERIOD})

        assert first.status_code == again.status_code == 200
        assert first.json() == again.json()
        [invoice] = first.json()["invoices"]
        assert invoice | {"id": ""} == {
            "id": "",
            "number": "INV-000001",
            "account": ADA,
            "currency": "USD",
            "total": "100",
        }

    @pytest.mark.any_database
    async def test_only_an_administrator_can_run_it(
        self, client: AsyncClient, buyer: Headers
    ) -> None:
        response = await client.post("/billing-runs", headers=buyer, json={"period": PERIOD})

        assert response.status_code == 403

    @pytest.mark.any_database
    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"period": "2998-01"}, 409),
            ({"period": "2026-13"}, 422),
            ({"period": "9999-12"}, 422),
            ({"period": "1969-12"}, 422),
            ({"period": "2026-1"}, 422),
            ({}, 422),
            ({"period": PERIOD, "force": True}, 422),
            ({"period": PERIOD, "force": "yes", "reason": "x"}, 422),
            ({"period": PERIOD, "unknown": 1}, 422),
        ],
    )
    async def test_a_wrong_request_changes_nothing(
        self,
        client: AsyncClient,
        admin: Headers,
        database: Database,
        body: Json,
        status: int,
    ) -> None:
        await use(database, 1)

        response = await client.post("/billing-runs", headers=admin, json=body)

        assert response.status_code == status
        listed = await client.get("/invoices", params={"account": ADA}, headers=admin)
        assert listed.json()["invoices"] == []

    async def test_it_is_refused_while_usage_is_missing(
        self, client: AsyncClient, admin: Headers, database: Database
    ) -> None:
        await use(database, 1, sequence=2)

        refused = await client.post("/billing-runs", headers=admin, json={"period": PERIOD})
        forced = await client.post(
            "/billing-runs",
            headers=admin,
            json={"period": PERIOD, "force": True, "reason": "A disk is lost."},
        )

        assert (refused.status_code, forced.status_code) == (409, 200)
        assert refused.json()["type"].endswith("usage_missing")
        assert len(forced.json()["invoices"]) == 1


@pytest.mark.any_database
class TestReading:
    async def test_an_account_reads_its_own(
        self, client: AsyncClient, buyer: Headers, issued: str
    ) -> None:
        listed = await client.get("/invoices", headers=buyer)
        read = await client.get(f"/invoices/{issued}", headers=buyer)

        assert [each["id"] for each in listed.json()["invoices"]] == [issued]
        invoice = read.json()
        assert (invoice["subtotal"], invoice["total"]) == ("12.35", "14.7")
        assert invoice["tax"] == {"rate": "0.19", "amount": "2.35", "reason": "Tax in DE."}
        assert invoice["lines"][0]["amount"] == "12.3461"

    async def test_another_accounts_invoice_does_not_exist(
        self, client: AsyncClient, issuer: Issuer, admin: Headers, issued: str
    ) -> None:
        bob = issuer.headers("usage:read", account=BOB)

        others = await client.get(f"/invoices/{issued}", headers=bob)
        missing = await client.get("/invoices/é", headers=bob)
        by_admin = await client.get(f"/invoices/{issued}", headers=admin)

        assert others.status_code == missing.status_code == 404
        assert by_admin.status_code == 200

    async def test_invoices_are_listed_newest_first_in_pages(
        self, client: AsyncClient, buyer: Headers, database: Database
    ) -> None:
        for month in ("2026-08", "2026-09", "2026-10"):
            await use(database, 1, time=DURING.replace(month=int(month[-2:])))
            await run(database, period=month, forced_reason=None, books=BOOKS, now=AFTER)

        first = (await client.get("/invoices?limit=2", headers=buyer)).json()
        cursor = first["next_cursor"]
        second = (await client.get(f"/invoices?limit=2&cursor={cursor}", headers=buyer)).json()

        assert [each["period"] for each in first["invoices"]] == ["2026-10", "2026-09"]
        assert [each["period"] for each in second["invoices"]] == ["2026-08"]
        assert second["next_cursor"] is None

    async def test_a_receipt_names_its_invoice(
        self, client: AsyncClient, buyer: Headers, database: Database
    ) -> None:
        (before,) = await use(database, 1)
        await only_invoice(database)
        (after,) = await use(database, 1, now=AFTER)

        receipts = (await client.get("/usage/events", headers=buyer)).json()["events"]
        one = (await client.get(f"/usage/events/{before['id']}", headers=buyer)).json()

        assert {each["id"]: each["invoice"] for each in receipts} == {
            before["id"]: "INV-000001",
            after["id"]: None,
        }
        assert one["invoice"] == "INV-000001"

    async def test_the_page_to_print_loads_nothing_and_escapes_names(
        self, client: AsyncClient, buyer: Headers, database: Database
    ) -> None:
        await store_profile(database, name="<script>alert(1)</script>")
        await use(database, 1_000_000)
        invoice = await only_invoice(database, books=BOOKS)

        response = await client.get(
            f"/invoices/{invoice.id}", headers={**buyer, "Accept": "text/html,*/*;q=0.8"}
        )

        assert response.headers["content-type"].startswith("text/html")
        assert "INV-000001" in response.text
        assert 'data-testid="invoice-total">119.00 USD<' in response.text
        assert "<script>" not in response.text
        assert "http" not in response.text.replace("http-equiv", "")

    async def test_csv_has_a_row_for_each_line_and_sum(
        self, client: AsyncClient, buyer: Headers, issued: str
    ) -> None:
        response = await client.get(f"/invoices/{issued}", headers={**buyer, "Accept": "text/csv"})

        rows = list(csv.DictReader(io.StringIO(response.text)))
        assert [(row["kind"], row["rounded"]) for row in rows] == [
            ("usage", "12.35"),
            ("tax", "2.35"),
            ("total", "14.7"),
        ]

    async def test_the_pdf_has_the_same_invoice_as_xml(
        self, client: AsyncClient, buyer: Headers, issued: str
    ) -> None:
        response = await client.get(
            f"/invoices/{issued}", headers={**buyer, "Accept": "application/pdf"}
        )

        pdf = PdfReader(io.BytesIO(response.content))
        assert "INV-000001" in pdf.pages[0].extract_text()
        [xml] = pdf.attachments["factur-x.xml"]
        assert _due(xml) == "14.70"
        assert b"pdfaid:part" in pdf.trailer["/Root"]["/Metadata"].get_data()  # type: ignore[index]


def _due(xml: bytes) -> str:
    root = etree.fromstring(xml)
    [due] = root.iter("{*}DuePayableAmount")
    return str(due.text)


@pytest.mark.any_database
class TestFacturX:
    @pytest.mark.parametrize(
        ("profile", "category"),
        [
            ({}, "S"),
            ({"country": "FR", "vat_id": "FR83404833048"}, "O"),
            ({"name": "Łódź & <Söhne>", "address": "a\nb\nc\nd"}, "S"),
        ],
    )
    async def test_the_xml_is_valid_by_its_schemas(
        self, database: Database, profile: dict[str, Any], category: str
    ) -> None:
        await store_profile(database, **profile)
        await use(database, 5, 6)
        invoice = await only_invoice(database, books=BOOKS)

        xml = as_xml(invoice)  # raises if it is not

        assert xml is not None
        [first, *_] = etree.fromstring(xml.encode()).iter("{*}CategoryCode")
        assert first.text == category

    async def test_without_a_profile_and_a_seller_there_is_a_pdf_too(
        self, client: AsyncClient, admin: Headers, database: Database
    ) -> None:
        await use(database, 5)
        response = await client.post("/billing-runs", headers=admin, json={"period": PERIOD})
        [issued] = response.json()["invoices"]

        assert as_pdf(await read_invoice(database, issued["id"])).startswith(b"%PDF")


@pytest.mark.any_database
class TestProfile:
    async def test_it_is_stored_and_its_vat_id_normalised(
        self, client: AsyncClient, buyer: Headers
    ) -> None:
        missing = await client.get("/billing-profile", headers=buyer)
        stored = await client.put("/billing-profile", headers=buyer, json=PROFILE)
        read = await client.get("/billing-profile", headers=buyer)

        assert missing.status_code == 404
        assert stored.json() == read.json() == PROFILE | {"vat_id": "DE136695976"}

    @pytest.mark.parametrize(
        "change",
        [
            {"vat_id": "DE136695975"},
            {"vat_id": "FR83404833048"},
            {"country": "Germany"},
            {"email": "ada"},
            {"name": ""},
            {"unknown": 1},
        ],
    )
    async def test_a_wrong_one_changes_nothing(
        self, client: AsyncClient, buyer: Headers, change: Json
    ) -> None:
        await client.put("/billing-profile", headers=buyer, json=PROFILE)

        response = await client.put("/billing-profile", headers=buyer, json=PROFILE | change)

        assert response.status_code == 422
        read = await client.get("/billing-profile", headers=buyer)
        assert read.json()["name"] == "Ada Ltd"

    async def test_another_accounts_needs_an_administrator(
        self, client: AsyncClient, buyer: Headers
    ) -> None:
        response = await client.get(f"/billing-profile?account={BOB}", headers=buyer)

        assert response.status_code == 403


class TestPreview:
    async def test_it_has_no_number(
        self, client: AsyncClient, buyer: Headers, app: FastAPI, database: Database
    ) -> None:
        await use(database, 10_000)

        response = await client.get(f"/invoices/preview?period={PERIOD}", headers=buyer)

        assert (response.json()["number"], response.json()["total"]) == (None, "1")

    async def test_without_usage_it_is_empty(self, client: AsyncClient, buyer: Headers) -> None:
        response = await client.get("/invoices/preview", headers=buyer)

        assert (response.json()["lines"], response.json()["total"]) == ([], "0")

    async def test_a_closed_month_has_none(
        self, client: AsyncClient, buyer: Headers, issued: str
    ) -> None:
        response = await client.get(f"/invoices/preview?period={PERIOD}", headers=buyer)

        assert response.status_code == 409


@pytest.mark.parametrize("currency", ["ZZZ", "AAA"])
async def test_an_unknown_currency_is_refused(
    client: AsyncClient, admin: Headers, currency: str
) -> None:
    credit = await client.post(
        f"/accounts/{ADA}/credits",
        headers={**admin, "Idempotency-Key": "k"},
        json={"amount": "1", "currency": currency, "reason": "A test."},
    )

    assert credit.status_code == 422
    balance = await client.get("/balance", params={"account": ADA}, headers=admin)
    assert balance.json()["balance"] == "0"
