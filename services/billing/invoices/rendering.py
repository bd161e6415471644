"""Invoices as CSV and as a page to print."""

from decimal import Decimal
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from services.billing.csv_text import csv_lines
from services.billing.currencies import shown
from services.billing.invoices.schemas import InvoiceRead, LineRead
from services.common.contracts import parse_amount

_COLUMNS = ("number", "period", "currency", "kind", "description", "versions", "price_id")
_SUMS = ("requests", "rows", "amount", "rounded")


def as_csv(invoice: InvoiceRead) -> str:
    """Return an invoice as CSV: its lines, then credits, tax and total."""
    head = (invoice.number, invoice.period, invoice.currency)
    rows: list[tuple[object, ...]] = [(*_COLUMNS, *_SUMS)]
    rows += [
        (
            *head,
            line.kind,
            line_name(line),
            " ".join(line.versions),
            line.price_id,
            line.requests,
            line.rows,
            line.amount,
            line.rounded,
        )
        for line in invoice.lines
    ]
    rest = [
        *(("credit", each.reason, f"-{each.amount}") for each in invoice.credits),
        ("tax", invoice.tax.reason, invoice.tax.amount),
        ("total", "", invoice.total),
    ]
    rows += [(*head, kind, text, "", "", "", "", amount, amount) for kind, text, amount in rest]
    return csv_lines(rows)


def as_html(invoice: InvoiceRead) -> str:
    """Return an invoice as a page that prints on A4 and loads nothing."""
    return str(
        environment().get_template("invoice.html.j2").render(invoice=invoice, **filters(invoice))
    )


@lru_cache
def environment() -> Environment:
    """Return the templates of invoices."""
    return Environment(
        loader=PackageLoader("services.billing.invoices"),
        autoescape=select_autoescape(("html", "xml", "html.j2", "xml.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def filters(invoice: InvoiceRead) -> dict[str, Any]:
    """Return what templates and the PDF show amounts and ranges with."""

    def money(amount: str) -> str:
        return shown(parse_amount(amount), currency=invoice.currency)

    return {
        "money": money,
        "percent": percent,
        "name": line_name,
        "versions": version_range,
        "price": price_text,
    }


def line_name(line: LineRead) -> str:
    """Return what a line bills: a model, or a monthly fee with its plan and days."""
    return line.model or line.description or "Monthly fee"


def percent(rate: str) -> str:
    """Return a tax rate as people read it: `19 %`."""
    number = Decimal(rate)
    digits = f"{number * 100 if number < 1 else number:f}"
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits} %"


def version_range(line: LineRead) -> str:
    """Return a line's versions: the only one, or the first and the last."""
    if len(line.versions) < 2:
        return "".join(line.versions)
    return f"{line.versions[0]} – {line.versions[-1]}"


def price_text(line: LineRead) -> str:
    """Return what a request of a line costs, tier by tier."""
    tiers = [
        f"{tier.per_request} per request"
        + (f" + {tier.per_row} per row" if tier.per_row != "0" else "")
        + (f" up to {tier.up_to_requests:,}" if tier.up_to_requests is not None else "")
        for tier in line.unit_prices
    ]
    included = [f"{line.included_requests:,} included"] if line.included_requests else []
    return "; ".join([*included, *tiers])
