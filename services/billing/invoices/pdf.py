"""Invoices as PDF/A-3 with embedded Factur-X XML (profile EN 16931); needs no system package."""

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from facturx import generate_from_binary, xml_check_xsd
from fpdf import FPDF, FontFace
from fpdf.enums import TableBordersLayout, VAlign, XPos, YPos

from services.billing.invoices.parties import Party
from services.billing.invoices.rendering import environment, filters, percent
from services.billing.invoices.schemas import InvoiceRead
from services.billing.periods import next_period, start_of
from services.common.contracts import format_amount, parse_amount

_FONTS = Path(__file__).parent / "fonts"
_BLUE, _GREY, _RULE = (31, 75, 153), (102, 112, 133), (207, 214, 225)
_MARGIN_MM = 16
_WIDTHS = (92, 26, 26, 34)
_MOST_ADDRESS_LINES = 3
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 does not allow (§2.2), which JSON does."""


def as_pdf(invoice: InvoiceRead) -> bytes:
    """Return an invoice as PDF. It may take seconds: call it in a thread."""
    invoice = _printable(invoice)
    pdf: bytes = generate_from_binary(
        _draw(invoice),
        as_xml(invoice).encode(),
        flavor="factur-x",
        level="en16931",
        check_xsd=False,  # `as_xml` does
        lang="en",
        pdf_metadata={
            "author": invoice.seller.name,
            "keywords": "Factur-X, Invoice",
            "title": f"Invoice {invoice.number}",
            "subject": f"Invoice {invoice.number}, {invoice.period}",
        },
    )
    return pdf


def _printable(invoice: InvoiceRead) -> InvoiceRead:
    """Return an invoice in which a mark replaces every character that XML does not allow."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, str):
            return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)
        if isinstance(value, dict):
            return {name: cleaned(each) for name, each in value.items()}
        return [cleaned(each) for each in value] if isinstance(value, list) else value

    return InvoiceRead.model_validate(cleaned(invoice.model_dump()))


# -- XML -----------------------------------------------------------------------------------------


def as_xml(invoice: InvoiceRead) -> str:
    """Return an invoice as Factur-X XML that is valid by the schemas of EN 16931."""
    invoice = _printable(invoice)
    shown = filters(invoice)

    def plain(amount: str) -> str:
        return str(shown["money"](amount)).replace(",", "")

    credited = sum(parse_amount(credit.amount) for credit in invoice.credits)
    start, end = start_of(invoice.period), start_of(next_period(invoice.period))
    xml = (
        environment()
        .get_template("factur-x.xml.j2")
        .render(
            invoice=invoice,
            **shown,
            plain=plain,
            address_lines=_address_lines,
            category=_category(invoice),
            rate=percent(invoice.tax.rate).removesuffix(" %"),
            credited=format_amount(credited),
            gross=format_amount(parse_amount(invoice.total) + credited),
            first_day=start.strftime("%Y%m%d"),
            last_day=(end - timedelta(days=1)).strftime("%Y%m%d"),
        )
    )
    xml_check_xsd(xml.encode(), flavor="factur-x", level="en16931")
    return xml


def _category(invoice: InvoiceRead) -> str:
    """Return the tax category of EN 16931 (UNTDID 5305)."""
    if Decimal(invoice.tax.rate):
        return "S"
    return "AE" if "Reverse charge" in invoice.tax.reason else "O"


def _address_lines(party: Party) -> list[str]:
    """Return an address in the three lines that there are; the last one has the rest."""
    lines = (party.address or "").splitlines()
    first, rest = lines[: _MOST_ADDRESS_LINES - 1], lines[_MOST_ADDRESS_LINES - 1 :]
    return [*first, *([", ".join(rest)] if rest else [])]


# -- pages ---------------------------------------------------------------------------------------


class _Page(FPDF):
    """A4 pages, numbered at the bottom."""

    def footer(self) -> None:
        self.set_y(-14)
        self.set_font("body", size=8)
        self.set_text_color(*_GREY)
        self.cell(0, 6, f"Page {self.page_no()} of {{nb}}", align="R")


def _draw(invoice: InvoiceRead) -> bytes:
    pdf = _Page(format="A4", enforce_compliance="PDF/A-3B")
    pdf.add_font("body", fname=_FONTS / "DejaVuSans.ttf")
    pdf.add_font("body", style="B", fname=_FONTS / "DejaVuSans-Bold.ttf")
    pdf.set_margins(_MARGIN_MM, 18, _MARGIN_MM)
    pdf.set_auto_page_break(auto=True, margin=20)
    pdf.set_creation_date(invoice.issued_at)
    pdf.set_title(f"Invoice {invoice.number}")
    pdf.set_lang("en")
    pdf.add_page()
    _head(pdf, invoice)
    _parties(pdf, invoice)
    _lines(pdf, invoice)
    _sums(pdf, invoice)
    pdf.ln(8)
    pdf.set_font("body", size=7.5)
    pdf.set_text_color(*_GREY)
    pdf.multi_cell(0, 4, f"{invoice.rounding} Account {invoice.account}.")
    return bytes(pdf.output())


def _head(pdf: FPDF, invoice: InvoiceRead) -> None:
    top = pdf.get_y()
    pdf.set_text_color(*_BLUE)
    pdf.set_font("body", style="B", size=22)
    pdf.cell(90, 10, "Invoice", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pdf.set_text_color(0)
    pdf.set_font("body", style="B", size=11)
    pdf.cell(90, 6, invoice.number)
    pdf.set_xy(pdf.w - _MARGIN_MM - 80, top)
    pdf.set_font("body", size=9)
    facts = (
        ("Issued", invoice.issued_at.strftime("%Y-%m-%d")),
        ("Period", f"{invoice.period} (UTC)"),
        ("Currency", invoice.currency),
    )
    for label, value in facts:
        pdf.set_x(pdf.w - _MARGIN_MM - 80)
        pdf.cell(80, 5.5, f"{label}  {value}", align="R", new_y=YPos.NEXT)
    pdf.set_draw_color(*_BLUE)
    pdf.set_line_width(0.8)
    pdf.line(_MARGIN_MM, top + 20, pdf.w - _MARGIN_MM, top + 20)
    pdf.set_line_width(0.2)
    pdf.set_xy(_MARGIN_MM, top + 26)


def _parties(pdf: FPDF, invoice: InvoiceRead) -> None:
    top, bottom = pdf.get_y(), pdf.get_y()
    width = (pdf.w - 2 * _MARGIN_MM) / 2 - 4
    for number, (label, party) in enumerate(
        (("FROM", invoice.seller), ("BILLED TO", invoice.buyer))
    ):
        x = _MARGIN_MM + number * (width + 8)
        pdf.set_xy(x, top)
        pdf.set_font("body", style="B", size=7.5)
        pdf.set_text_color(*_GREY)
        pdf.multi_cell(width, 5, label, new_x=XPos.LEFT, new_y=YPos.NEXT)
        pdf.set_text_color(0)
        pdf.set_font("body", style="B", size=10)
        pdf.multi_cell(width, 5, party.name, new_x=XPos.LEFT, new_y=YPos.NEXT, align="L")
        pdf.set_font("body", size=9)
        vat = f"VAT {party.vat_id}" if party.vat_id else None
        text = [party.address, party.country, vat, party.email]
        pdf.multi_cell(width, 4.8, "\n".join(filter(None, text)), align="L")
        bottom = max(bottom, pdf.get_y())
    pdf.set_xy(_MARGIN_MM, bottom + 8)


def _lines(pdf: FPDF, invoice: InvoiceRead) -> None:
    shown = filters(invoice)
    pdf.set_font("body", size=8.5)
    pdf.set_draw_color(*_RULE)
    heading = FontFace(emphasis="BOLD", color=_GREY)
    with pdf.table(
        col_widths=_WIDTHS,
        text_align=("LEFT", "RIGHT", "RIGHT", "RIGHT"),
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        headings_style=heading,
        line_height=4.6,
        padding=1.6,
        v_align=VAlign.T,
    ) as table:
        table.row(("Model and price", "Requests", "Rows", "Amount"))
        for line in invoice.lines:
            described = [shown["name"](line), shown["versions"](line), shown["price"](line)]
            table.row(
                (
                    "\n".join(filter(None, described)),
                    f"{line.requests:,}",
                    f"{line.rows:,}",
                    f"{shown['money'](line.rounded)}\n({line.amount} exact)",
                )
            )
        if not invoice.lines:
            table.row(("No usage.", "", "", ""))


def _sums(pdf: FPDF, invoice: InvoiceRead) -> None:
    money: Any = filters(invoice)["money"]
    tax = f"Tax {percent(invoice.tax.rate)}: {invoice.tax.reason}"
    rows = [
        ("Subtotal", money(invoice.subtotal)),
        (tax, money(invoice.tax.amount)),
        *((f"Credit: {each.reason}", f"−{money(each.amount)}") for each in invoice.credits),
    ]
    pdf.ln(4)
    pdf.set_font("body", size=9)
    with pdf.table(
        width=110,
        align="RIGHT",
        col_widths=(72, 38),
        text_align=("LEFT", "RIGHT"),
        borders_layout=TableBordersLayout.NONE,
        first_row_as_headings=False,
        line_height=4.8,
        padding=1,
        v_align=VAlign.T,
    ) as table:
        for row in rows:
            table.row(row)
        total = (f"Total {invoice.currency}", money(invoice.total))
        table.row(total, style=FontFace(emphasis="BOLD", size_pt=12))
