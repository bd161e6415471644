"""Exports: every event that a month bills, once, in files that other programs can read."""

import csv
import io
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response

from harness.issuer import Headers, Issuer
from harness.usage_events import ADA, BOB, deliver, event
from services.billing.models import Period
from services.billing.usage import exports, exports_router, parquet
from services.billing.usage.export_formats import COLUMNS, CsvWriter, ExportFormat, FocusWriter
from services.billing.usage.exports import stream_usage
from services.billing.usage.focus import FOCUS_COLUMNS
from services.billing.usage.parquet import ParquetWriter
from services.common.db.database import Database
from tests.integration.billing.months import BOOKS
from tests.integration.billing.statements import accesses, recorded
from tests.integration.billing.test_tags import tagged

START = datetime(2026, 4, 1, tzinfo=UTC)
MONTH = "2026-04"


async def export(client: AsyncClient, headers: Headers, **query: str) -> Response:
    answer = await client.get("/exports/usage", headers=headers, params={"period": MONTH} | query)
    assert answer.status_code == 200, answer.text
    return answer


def read_csv(answer: Response) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def sent_at(*moments: datetime | str, **members: Any) -> list[dict[str, Any]]:
    return [event(time=time, id=f"e{n:05}", **members) for n, time in enumerate(moments)]


class TestCsv:
    async def test_a_row_has_everything_about_an_event(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        sent = tagged(time="2026-04-01T00:00:00.25Z", rows=3, api_key="k", tags={"team": "a"})
        sent["data"]["client_id"] = "k"
        await deliver(client, service, [sent])

        answer = await export(client, ada)

        [row] = read_csv(answer)
        price_id = row.pop("price_id")
        assert price_id
        assert row == {
            "time": "2026-04-01T00:00:00.250000Z",
            "id": sent["id"],
            "account": ADA,
            "model": "wine",
            "version": sent["data"]["version"],
            "rows": "3",
            "client_id": "k",
            "api_key": "k",
            "tags": '{"team":"a"}',
            "amount": "0.0008",
            "currency": "USD",
            "invoice": "",
        }
        assert answer.text.startswith(",".join(COLUMNS) + "\r\n")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert 'filename="usage-2026-04.csv"' in answer.headers["content-disposition"]

    async def test_it_has_every_event_of_the_month_once_and_in_order(
        self, client: AsyncClient, service: Headers, ada: Headers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports, "PAGE_ROWS", 3)
        events = [event(time=START + timedelta(seconds=n // 4), id=f"e{n:02}") for n in range(12)]
        events += [
            event(time=START, id="e00", source="/elsewhere"),
            event(time="2026-03-31T23:59:59.999999Z"),
            event(time="2026-05-01T00:00:00Z"),
            event(time=START, account=BOB),
        ]
        await deliver(client, service, events)

        rows = read_csv(await export(client, ada))

        assert len(rows) == 13
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)

    async def test_late_events_are_in_the_month_that_bills_them(
        self, client: AsyncClient, service: Headers, ada: Headers, database: Database
    ) -> None:
        now = datetime.now(UTC)
        async with database.transaction() as session:
            session.add(Period(id="2026-03", closed_at=now))
        late = event(time="2026-03-15T12:00:00Z", id="late")
        await deliver(client, service, [event(id="new", time=now), late])

        billed = read_csv(await export(client, ada, period=f"{now:%Y-%m}"))
        closed = read_csv(await export(client, ada, period="2026-03"))

        assert [row["id"] for row in billed] == ["new", "late"]
        assert closed == []

    async def test_late_events_are_found_by_their_list(
        self,
        client: AsyncClient,
        service: Headers,
        ada: Headers,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(exports, "PAGE_ROWS", 2)
        await deliver(client, service, sent_at(*[START - timedelta(days=90)] * 500))
        now = datetime.now(UTC)
        async with database.transaction() as session:
            session.add(Period(id="2026-03", closed_at=now))
        times = [START - timedelta(minutes=1 + n // 3) for n in range(1, 8)]
        late = [event(time=time, id=f"late{n}") for n, time in enumerate(times)]
        await deliver(client, service, [*late, event(time=START, account=BOB, id="bob")])

        with recorded(database) as statements:
            rows = read_csv(await export(client, ada, period=f"{now:%Y-%m}"))

        assert [row["id"] for row in rows] == [f"late{n}" for n in (5, 6, 2, 3, 4, 0, 1)]
        pages = [each for each in statements if "late_events" in each.sql]
        assert len(pages) == 4
        for access in await accesses(database, pages):
            assert access.key == "PRIMARY"
            assert access.kind == ("eq_ref" if access.table == "usage_events" else access.kind)
            assert "filesort" not in access.extra

    @pytest.mark.any_database
    async def test_no_cell_is_a_formula(
        self, client: AsyncClient, service: Headers, ada: Headers
    ) -> None:
        sent = event(time=START, id="=1+1")
        sent["data"] |= {"model": "-2+3", "version": "@SUM(1)", "client_id": "+a"}
        await deliver(client, service, [sent])

        for file_format, names in (
            ("csv", ("id", "model", "version", "client_id")),
            ("focus", ("x_EventId", "SkuId", "x_ModelVersion", "x_ClientId")),
        ):
            [row] = read_csv(await export(client, ada, format=file_format))

            assert [row[name] for name in names] == ["'=1+1", "'-2+3", "'@SUM(1)", "'+a"]

    @pytest.mark.parametrize("file_format", ["csv", "focus", "parquet"])
    async def test_a_month_without_usage_has_no_rows(
        self, client: AsyncClient, ada: Headers, file_format: str
    ) -> None:
        answer = await export(client, ada, format=file_format)

        if file_format == "parquet":
            assert pq.read_table(io.BytesIO(answer.content)).num_rows == 0
        else:
            assert answer.text.count("\r\n") == 1


@pytest.mark.any_database
async def test_focus_has_its_mandatory_columns_and_ours(
    app: FastAPI,
    client: AsyncClient,
    service: Headers,
    ada: Headers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(app.state._state, "books", BOOKS)
    sent = tagged(time="2026-04-30T23:10:00.5Z", rows=3, api_key="k", tags={"team": "a"})
    await deliver(client, service, [sent])

    answer = await export(client, ada, format="focus")

    [row] = read_csv(answer)
    assert row.keys() >= MANDATORY
    assert list(row) == sorted(row, key=lambda name: (name.startswith("x_"), name))
    costs = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
    assert {row[name] for name in costs} == {"0.0008"}
    assert Decimal(row["PricingQuantity"]) * Decimal(row["ListUnitPrice"]) == Decimal("0.0008")
    assert row["BillingPeriodStart"] == "2026-04-01T00:00:00Z"
    assert row["BillingPeriodEnd"] == row["ChargePeriodEnd"] == "2026-05-01T00:00:00Z"
    assert row["ChargePeriodStart"] == "2026-04-30T23:00:00Z"
    assert (row["BillingAccountId"], row["BillingCurrency"]) == (ADA, "USD")
    assert (row["ChargeCategory"], row["ServiceCategory"]) == ("Usage", "AI and Machine Learning")
    assert (row["ConsumedQuantity"], row["ConsumedUnit"]) == ("3", "Rows")
    assert (row["Tags"], row["x_ApiKeyId"], row["x_EventId"]) == ('{"team":"a"}', "k", sent["id"])
    sellers = ("ProviderName", "PublisherName", "InvoiceIssuerName")
    assert {row[name] for name in sellers} == {BOOKS.seller.name}
    assert len(set(FOCUS_COLUMNS)) == len(FOCUS_COLUMNS)


MANDATORY = {
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
}


@pytest.mark.any_database
class TestParquet:
    def test_an_amount_keeps_all_of_its_digits(self) -> None:
        high, low = 10**10 - 1, 2**63 - 1
        exact = high * 2**63 + low

        amount = parquet._decimal(str(high), str(low))

        assert int(amount.as_tuple().exponent) >= -9
        assert Fraction(amount) == Fraction(exact, 10**9)

    async def test_it_has_typed_columns_in_several_row_groups(
        self, client: AsyncClient, service: Headers, ada: Headers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports, "PAGE_ROWS", 2)
        monkeypatch.setattr(parquet, "GROUP_ROWS", 4)
        events = sent_at(*(START + timedelta(hours=n) for n in range(9)), rows=2)
        events[0]["data"] |= {"tags": {"team": "a"}, "model": "=1+1"}
        await deliver(client, service, events)

        answer = await export(client, ada, format="parquet")

        file = pq.ParquetFile(io.BytesIO(answer.content))
        rows = file.read().to_pylist()
        assert answer.headers["content-type"] == "application/vnd.apache.parquet"
        assert tuple(file.schema_arrow.names) == COLUMNS
        assert file.num_row_groups == 3
        assert [row["id"] for row in rows] == [each["id"] for each in events]
        assert (rows[0]["time"], rows[0]["amount"], rows[0]["rows"]) == (
            START,
            Decimal("0.0007"),
            2,
        )
        assert (rows[0]["tags"], rows[1]["tags"]) == ('{"team":"a"}', None)
        assert rows[0]["model"] == "=1+1"

    async def test_without_pyarrow_it_is_501(
        self, client: AsyncClient, ada: Headers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports_router, "find_spec", lambda name: None)

        answer = await client.get(
            "/exports/usage", headers=ada, params={"period": MONTH, "format": "parquet"}
        )

        assert answer.status_code == 501
        assert answer.json()["type"].endswith("parquet_not_installed")


async def peak_bytes(database: Database, account: str, file_format: ExportFormat) -> int:
    """Return how much memory an export takes at most."""
    tracemalloc.start()
    try:
        async for _ in stream_usage(
            database, account=account, period=MONTH, file_format=file_format, seller="A seller"
        ):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.costly
async def test_memory_does_not_grow_with_the_rows(
    client: AsyncClient, service: Headers, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PAGE_ROWS", 500)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 1000)
    few, many = range(1000), range(5000)
    await deliver(
        client,
        service,
        [
            *sent_at(*(START + timedelta(seconds=n) for n in few), source="/few"),
            *sent_at(*(START + timedelta(seconds=n) for n in many), account=BOB),
        ],
    )

    for file_format in (CsvWriter, FocusWriter, ParquetWriter):
        await peak_bytes(database, ADA, file_format)  # fills the caches

        of_few = await peak_bytes(database, ADA, file_format)
        of_many = await peak_bytes(database, BOB, file_format)

        assert of_many < 2 * of_few


@pytest.mark.any_database
class TestWhoMay:
    async def test_only_those_who_may_read_usage(
        self, client: AsyncClient, issuer: Issuer, ada: Headers
    ) -> None:
        path = f"/exports/usage?period={MONTH}"
        predicting = issuer.headers("predict", account=ADA)

        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers=predicting)).status_code == 403
        assert (await client.get(f"{path}&account={BOB}", headers=ada)).status_code == 403

    async def test_an_administrator_may_export_any_account(
        self, client: AsyncClient, service: Headers, admin: Headers
    ) -> None:
        await deliver(client, service, sent_at(START, account=BOB))

        [row] = read_csv(await export(client, admin, account=BOB))

        assert row["account"] == BOB


@pytest.mark.any_database
@pytest.mark.parametrize(
    "query",
    [
        {},
        {"period": "2026-13"},
        {"period": "2026-1"},
        {"period": "0000-01"},
        {"period": "9999-12"},
        {"period": "2026-04-01"},
        {"period": MONTH, "format": "xlsx"},
    ],
)
async def test_an_invalid_query_is_422(
    client: AsyncClient, ada: Headers, query: dict[str, str]
) -> None:
    answer = await client.get("/exports/usage", headers=ada, params=query)

    assert answer.status_code == 422
