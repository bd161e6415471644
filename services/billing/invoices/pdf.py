"""Invoices as PDF/A-3 with embedded Factur-X XML (profile EN 16931); needs no system package."""

from datetime import UTC
from pathlib import Path
from typing import Any

from fpdf import FPDF, FontFace
from fpdf.enums import PageMode, TableBordersLayout, VAlign, XPos, YPos

from services.billing.invoices.factur_x import as_xml, printable
from services.billing.invoices.rendering import environment, filters, percent
from services.billing.invoices.schemas import InvoiceRead

_FONTS = Path(__file__).parent / "fonts"
_BLUE, _GREY, _RULE = (31, 75, 153), (102, 112, 133), (207, 214, 225)
_MARGIN_MM = 16
_WIDTHS = (92, 26, 26, 34)


def as_pdf(invoice: InvoiceRead) -> bytes:
    """Return an invoice as PDF, always of the same bytes.

    It has no XML if `as_xml` has none. It may take seconds: call it in a thread.
    """
    invoice = printable(invoice)
    pdf = _draw(invoice)
    xml = as_xml(invoice)
    pdf.set_keywords("Invoice" if xml is None else "Factur-X, Invoice")
    if xml is not None:
        pdf.embed_file(
            bytes=xml.encode(),
            basename="factur-x.xml",
            desc="The invoice as Factur-X XML",
            mime_type="text/xml",
            associated_file_relationship="Alternative",
            creation_date=invoice.issued_at,
            modification_date=invoice.issued_at,
            compress=True,
            checksum=True,
        )
        pdf.page_mode = PageMode.USE_ATTACHMENTS
    pdf.set_xmp_metadata(
        environment()
        .get_template("xmp.xml.j2")
        .render(
            title=pdf.title,
            subject=pdf.subject,
            author=pdf.author,
            keywords=pdf.keywords,
            producer=pdf.producer,
            written_at=invoice.issued_at.astimezone(UTC).isoformat(timespec="seconds"),
            has_xml=xml is not None,
        )
    )
    return bytes(pdf.output())


class _Page(FPDF):
    """A4 pages, numbered at the bottom."""

    def footer(self) -> None:
        self.set_y(-14)
        self.set_font("body", size=8)
        self.set_text_color(*_GREY)
        self.cell(0, 6, f"Page {self.page_no()} of {{nb}}", align="R")


def _draw(invoice: InvoiceRead) -> FPDF:
    pdf = _Page(format="A4", enforce_compliance="PDF/A-3B")
    pdf.add_font("body", fname=_FONTS / "DejaVuSans.ttf")
    pdf.add_font("body", style="B", fname=_FONTS / "DejaVuSans-Bold.ttf")
    pdf.set_margins(_MARGIN_MM, 18, _MARGIN_MM)
    pdf.set_auto_page_break(auto=True, margin=20)
    pdf.set_creation_date(invoice.issued_at)
    pdf.set_title(f"Invoice {invoice.number}")
    pdf.set_subject(f"Invoice {invoice.number}, {invoice.period}")
    pdf.set_author(invoice.seller.name)
    pdf.set_producer("Tollgate")
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
    return pdf


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
        own = party.registration_number
        registered = f"Registration number {own}" if own else None
        text = [party.address, party.country, vat, registered, party.email]
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
