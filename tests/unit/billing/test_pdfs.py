"""PDFs of invoices: made one at a time, each once, and always of the same bytes."""

import asyncio
import io
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from lxml import etree
from pypdf import PdfReader

from harness.waiting import eventually_async
from services.billing.invoices import pdfs as made
from services.billing.invoices.parties import Party
from services.billing.invoices.pdf import as_pdf
from services.billing.invoices.pdfs import InvoicePdfs
from services.billing.invoices.schemas import InvoiceRead
from services.common.errors import Unavailable
from tests.unit.billing.stored_invoices import NOT_XML, SELLER, invoice


def attachments(pdf: bytes) -> list[str]:
    return list(PdfReader(io.BytesIO(pdf)).attachments)


def xmp(pdf: bytes) -> etree._Element:
    metadata: Any = PdfReader(io.BytesIO(pdf)).trailer["/Root"]
    return etree.fromstring(metadata["/Metadata"].get_data())


def test_the_same_invoice_gives_the_same_bytes_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    first = as_pdf(invoice())
    monkeypatch.setattr(time, "time", lambda: 1.0)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")

    assert as_pdf(invoice()) == first
    assert {each.text for each in xmp(first).iter("{*}CreateDate", "{*}ModifyDate")} == {
        "2026-11-01T00:00:00+00:00"
    }


def test_rdf_declares_its_namespace_itself() -> None:
    assert re.search(rb"<rdf:RDF xmlns:rdf=", etree.tostring(xmp(as_pdf(invoice()))))


def test_characters_that_xml_forbids_are_replaced() -> None:
    pdf = as_pdf(invoice(seller=SELLER.model_copy(update={"name": NOT_XML}), reason=NOT_XML))

    assert [each.text for each in xmp(pdf).iterfind(".//{*}creator//{*}li")] == ["a�����"]
    assert attachments(pdf) == ["factur-x.xml"]


def test_an_incomplete_invoice_is_a_pdf_without_xml() -> None:
    pdf = as_pdf(invoice(buyer=Party(name="Ada")))

    assert attachments(pdf) == []
    assert b"factur-x" not in etree.tostring(xmp(pdf))
    assert [each.text for each in xmp(pdf).iter("{*}part", "{*}conformance")] == ["3", "B"]


class Printer:
    """Makes PDFs when it may, and counts how many it makes at once."""

    def __init__(self) -> None:
        self.may = threading.Semaphore(0)
        self.numbers: list[str] = []
        self.at_once = self.most_at_once = 0

    def make(self, invoice: InvoiceRead) -> bytes:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.numbers.append(invoice.id)
        self.may.acquire()
        self.at_once -= 1
        return invoice.number.encode()


@pytest.fixture
def printer(monkeypatch: pytest.MonkeyPatch) -> Printer:
    printer = Printer()
    monkeypatch.setattr(made, "_make", printer.make)
    return printer


@pytest.fixture
def pdfs(printer: Printer) -> Iterator[InvoicePdfs]:
    pdfs = InvoicePdfs()
    yield pdfs
    pdfs.close()
    printer.may.release(100)


async def test_they_are_made_one_at_a_time_and_kept(printer: Printer, pdfs: InvoicePdfs) -> None:
    printer.may.release(3)
    found = await asyncio.gather(*(pdfs.get(invoice(number % 3)) for number in range(6)))
    again = await pdfs.get(invoice(2))

    assert found == [b"INV-000000", b"INV-000001", b"INV-000002"] * 2
    assert again == b"INV-000002"
    assert (printer.numbers, printer.most_at_once) == (["0", "1", "2"], 1)


async def test_one_that_says_something_else_is_made_anew(
    printer: Printer, pdfs: InvoicePdfs
) -> None:
    printer.may.release(2)
    await pdfs.get(invoice(1))
    await pdfs.get(invoice(1, buyer=Party(name="Bob")))

    assert printer.numbers == ["1", "1"]


async def test_too_many_are_refused(
    printer: Printer, pdfs: InvoicePdfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "WAITING_MAX", 2)
    waiting = [asyncio.create_task(pdfs.get(invoice(number))) for number in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(Unavailable):
        await pdfs.get(invoice(2))

    printer.may.release(3)
    assert await asyncio.gather(*waiting) == [b"INV-000000", b"INV-000001"]
    assert await pdfs.get(invoice(2)) == b"INV-000002"


async def test_one_whose_caller_has_gone_is_kept(printer: Printer, pdfs: InvoicePdfs) -> None:
    gone = asyncio.create_task(pdfs.get(invoice(1)))
    await eventually_async(lambda: printer.at_once == 1)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    printer.may.release()

    assert await pdfs.get(invoice(1)) == b"INV-000001"
    assert printer.numbers == ["1"]


async def test_the_oldest_make_room(
    printer: Printer, pdfs: InvoicePdfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "KEPT_BYTES", 2 * len("INV-000001"))
    printer.may.release(10)
    for number in (1, 2, 1, 3, 1, 2):
        await pdfs.get(invoice(number))

    assert printer.numbers == ["1", "2", "3", "2"]


async def test_a_failure_is_not_kept(pdfs: InvoicePdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: InvoiceRead) -> bytes:
        raise ValueError

    monkeypatch.setattr(made, "_make", fail)

    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011 - a plain one
            await pdfs.get(invoice())
