"""Lineage: from the lines of an invoice to versions, manifests and training data."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from harness.stores import FIRST, SECOND, SignedStore, new_signed_store
from registry.records import DataObject
from services.billing.archives.reading import Archives
from services.billing.archives.service import archive
from services.billing.archives.store import ArchiveStore
from services.billing.invoices.lineage import trace
from services.billing.invoices.schemas import InvoiceRead
from services.common.contracts import format_amount, parse_amount
from services.common.db.database import Database
from tests.integration.billing.conftest import SEPTEMBER
from tests.integration.billing.months import AFTER, DURING, PERIOD, close, only_invoice, use

OBJECT = DataObject(name="wine/2026.csv", generation="17", size=4, sha256="c" * 64)


@pytest.fixture
def signed(tmp_path: Path) -> SignedStore:
    """A store with one of the two versions that answered."""
    signed = new_signed_store(tmp_path, f"file://{tmp_path}/models")
    signed.publish(FIRST, data=[OBJECT], environment={"commit": "0a1b2c3"})
    return signed


@pytest.fixture
async def billed(database: Database) -> InvoiceRead:
    """An invoice of three requests; the second version answered one, a late one of September."""
    await use(database, 9, time=SEPTEMBER, version=FIRST, now=SEPTEMBER)
    await close(database, "2026-09")
    await use(database, 1, 2, version=FIRST)
    await use(database, 3, time=SEPTEMBER, version=SECOND, now=DURING)
    return await only_invoice(database)


async def run(signed: SignedStore, database_url: str, *arguments: str) -> Result:
    environment = {
        "BILLING_DATABASE_URL": database_url,
        "TOLLGATE_HOME": str(signed.folder),
    }
    runner = CliRunner(env=environment)
    return await asyncio.to_thread(runner.invoke, app, ["billing", "lineage", *arguments])


def versions_of(result: Result) -> dict[str, dict[str, Any]]:
    [line] = orjson.loads(result.stdout)["lines"]
    return {each["version"]: each for each in line["versions"]}


async def test_a_line_leads_to_its_versions_and_their_data(
    signed: SignedStore, billed: InvoiceRead, database_url: str
) -> None:
    signed.publish(SECOND)

    result = await run(signed, database_url, billed.number, "--json")

    assert result.exit_code == 0, result.output
    found = versions_of(result)
    assert {version: each["requests"] for version, each in found.items()} == {FIRST: 2, SECOND: 1}
    assert sum(parse_amount(each["amount"]) for each in found.values()) == (
        parse_amount(billed.lines[0].amount)
    )
    first = found[FIRST]
    assert first["manifest_sha256"] == signed.store.manifest_sha256("wine", FIRST)
    assert (first["signature"], first["commit"]) == ("valid", "0a1b2c3")
    assert first["data"] == [OBJECT.model_dump()]


async def test_a_version_that_the_store_lost_is_named(
    signed: SignedStore, billed: InvoiceRead, database_url: str
) -> None:
    result = await run(signed, database_url, billed.id, "0")

    assert result.exit_code == 1
    assert f"There is no version {SECOND} of 'wine'." in result.stderr
    assert "no longer in the model store" in result.stderr
    for shown in (FIRST, SECOND, "commit 0a1b2c3", "wine/2026.csv", "generation 17", "c" * 64):
        assert shown in result.stdout


async def test_a_changed_manifest_is_no_valid_lineage(
    signed: SignedStore, billed: InvoiceRead, database_url: str
) -> None:
    signed.publish(SECOND)
    signed.path(SECOND, "manifest.json").flip_bit()

    result = await run(signed, database_url, billed.number, "--json")

    assert result.exit_code == 1
    found = versions_of(result)
    assert (found[FIRST]["signature"], found[SECOND]["signature"]) == ("valid", "invalid")
    assert found[SECOND]["data"] == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["INV-999999"], "Invoice not found."),
        (["ü"], "Invoice not found."),
        (["INV-000002", "1"], "has 1 line, counted from 0; there is no 1."),
    ],
)
async def test_what_does_not_exist_is_named(
    signed: SignedStore,
    billed: InvoiceRead,
    database_url: str,
    arguments: list[str],
    reason: str,
) -> None:
    result = await run(signed, database_url, *arguments)

    assert result.exit_code == 1
    assert reason in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.costly
async def test_an_archived_month_has_the_same_lineage(
    database: Database, billed: InvoiceRead, tmp_path: Path
) -> None:
    _, before = await trace(database, invoice=billed.id)
    store = ArchiveStore(str(tmp_path / "archive"))
    await archive(database, store, period=PERIOD, keep_months=None, now=AFTER)

    _, after = await trace(database, Archives(store), invoice=billed.number)

    assert {key: dict(versions) for key, versions in after.items()} == before
    [versions] = after.values()
    total = sum(usage.amount for usage in versions.values())
    assert format_amount(total) == billed.lines[0].amount
