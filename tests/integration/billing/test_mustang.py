"""PDFs of invoices against the Mustang validator: PDF/A-3, the schema and the rules of EN 16931."""

import asyncio
import shutil
import subprocess
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import pytest
from lxml import etree

from harness.programs import ROOT
from harness.usage_events import ADA
from services.billing.invoices.issuing import Books
from services.billing.invoices.parties import TaxRule
from services.billing.invoices.pdf import as_pdf
from services.common.db.database import Database
from tests.integration.billing.months import (
    SELLER,
    close,
    read_invoice,
    store_profile,
    use,
    use_prepaid,
)

JARS = ROOT / ".tools/mustang"  # see scripts/mustang.sh
WITHOUT_XML = "no profile"
BUYERS: dict[str, dict[str, str] | None] = {
    "untaxed": {"country": "CH", "vat_id": "CHE-107.787.577 IVA"},
    "taxed at 0 %": {"country": "GB"},
    "reverse charge": {"country": "FR", "vat_id": "FR83404833048"},
    "VAT id without a prefix": {"country": "US", "vat_id": "12-3456789"},
    WITHOUT_XML: None,
}
BOOKS = Books(
    SELLER,
    (
        TaxRule(country="DE", rate="0.19"),
        TaxRule(country="GB", rate="0"),
        TaxRule(country="FR", rate="20", reverse_charge=True),
        TaxRule(country="US", rate="7.25"),
    ),
)

pytestmark = [
    pytest.mark.slow,  # the validator takes ten seconds to start
    pytest.mark.any_database,
    pytest.mark.skipif(
        not (JARS.is_dir() and shutil.which("java")), reason="the Mustang validator is missing"
    ),
]


async def test_invoices_are_valid(database: Database, tmp_path: Path) -> None:
    """Of one without XML, only PDF/A-3 is checked."""
    await store_profile(database)
    await use_prepaid(database)
    await use(database, 1000, 20_000)
    names = {ADA: "taxed, prepaid and postpaid"}
    for name, profile in BUYERS.items():
        account = str(uuid5(NAMESPACE_OID, name))
        names[account] = name
        if profile is not None:
            await store_profile(database, account=account, **profile)
        await use(database, 1000, account=account)
    run = await close(database, books=BOOKS)
    invoices = {names[each.account]: await read_invoice(database, each.id) for each in run.invoices}
    assert set(invoices) == set(names.values())
    local = SELLER.model_copy(update={"vat_id": "12/345/67890"})
    taxed = invoices[names[ADA]]
    invoices["seller with a local tax id"] = taxed.model_copy(update={"seller": local})
    registered = {"registration_number": "HRB 12345 B"}
    invoices["registered seller"] = taxed.model_copy(
        update={"seller": SELLER.model_copy(update=registered)}
    )
    untaxed = invoices["untaxed"]
    invoices["registered seller without a VAT id"] = untaxed.model_copy(
        update={"seller": SELLER.model_copy(update=registered | {"vat_id": None})}
    )
    paths = {name: tmp_path / f"{number}.pdf" for number, name in enumerate(invoices)}
    for name, path in paths.items():
        path.write_bytes(as_pdf(invoices[name]))

    await asyncio.to_thread(_validate, list(paths.values()))

    for name, path in paths.items():
        report = Path(f"{path}.xml").read_bytes()
        assert b"isCompliant=true" in report, f"{name}: {report.decode()}"
        if name != WITHOUT_XML:
            [status] = etree.fromstring(report).xpath("/validation/summary/@status")
            assert status == "valid", f"{name}: {report.decode()}"


def _validate(paths: list[Path]) -> None:
    program = ROOT / "scripts/mustang/Validate.java"
    command = ["java", "-cp", f"{JARS}/*", str(program), *map(str, paths)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
