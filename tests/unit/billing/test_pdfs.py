"""PDFs of invoices: any text that was stored, one at a time, and each made once."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from harness.waiting import eventually_async
from services.billing.invoices import pdfs as made
from services.billing.invoices.parties import Party, Tax
from services.billing.invoices.pdf import as_pdf, as_xml
from services.billing.invoices.pdfs import InvoicePdfs
from services.billing.invoices.schemas import CreditLine, InvoiceRead, LineRead, UnitPrice
from services.common.errors import Unavailable

NOT_XML = "a\x00\x0b\x1f\ufffe\uffff"
LINE = LineRead(
    kind="usage",
    model="wine",
    price_id="p",
    versions=["1"],
    requests=1,
    rows=1,
    unit_prices=[UnitPrice(up_to_requests=None, per_request="0", per_row="0")],
    included_requests=0,
    amount="0",
    rounded="0",
)


def invoice(
    number: int = 1, *, name: str = "Ada", reason: str = "", rate: str = "0"
) -> InvoiceRead:
    return InvoiceRead(
        id=str(number),
        number=f"INV-{number:06d}",
        issued_at=datetime(2026, 11, 1, tzinfo=UTC),
        account="ada",
        period="2026-10",
        currency="USD",
        seller=Party(name=name),
        buyer=Party(name=name, address=f"{name}\n{name}"),
        lines=[LINE],
        credits=[CreditLine(id="1", reason=reason, amount="1")] if reason else [],
        subtotal="0",
        tax=Tax(rate=rate, amount="0", reason=name),
        total="0",
        rounding=name,
    )


def test_characters_that_xml_forbids_are_replaced() -> None:
    shown = invoice(name=NOT_XML, reason=NOT_XML)

    assert as_pdf(shown).startswith(b"%PDF")
    assert "a��" in as_xml(shown)


def test_an_address_without_a_country_is_not_in_the_xml() -> None:
    assert "PostalTradeAddress" not in as_xml(invoice())


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
    await pdfs.get(invoice(1, name="Bob"))

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
