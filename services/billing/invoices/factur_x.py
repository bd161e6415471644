"""Invoices as Factur-X XML, profile EN 16931; its rules are named like there (BR-…)."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

from facturx import xml_check_xsd
from stdnum import get_cc_module

from services.billing.invoices.parties import Party
from services.billing.invoices.rendering import environment, filters, percent
from services.billing.invoices.schemas import InvoiceRead
from services.billing.periods import next_period, start_of
from services.common.contracts import format_amount, parse_amount

_MOST_ADDRESS_LINES = 3
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 does not allow (§2.2), which JSON does."""


def printable(invoice: InvoiceRead) -> InvoiceRead:
    """Return an invoice in which a mark replaces every character that XML does not allow."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, str):
            return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)
        if isinstance(value, dict):
            return {name: cleaned(each) for name, each in value.items()}
        return [cleaned(each) for each in value] if isinstance(value, list) else value

    return InvoiceRead.model_validate(cleaned(invoice.model_dump()))


def as_xml(invoice: InvoiceRead) -> str | None:
    """Return an invoice as Factur-X XML, or None if it lacks what EN 16931 requires."""
    invoice = printable(invoice)
    category = _category(invoice)
    if not _is_complete(invoice, category):
        return None
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
            category=category,
            is_vat_id_allowed=lambda party: _is_vat_id_allowed(party, category),
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
    if "Reverse charge" in invoice.tax.reason:
        return "AE"
    # A rule that taxes at 0 % is within the scope of tax; without a rule, tax does not apply.
    return "Z" if invoice.tax.reason.startswith("Tax in ") else "O"


def _is_complete(invoice: InvoiceRead, category: str) -> bool:
    """Return whether an invoice has what EN 16931 requires and Tollgate does not."""
    seller, buyer = invoice.seller, invoice.buyer
    return bool(
        seller.country  # BR-09
        and buyer.country  # BR-11
        and invoice.lines  # BR-16
        and (
            seller.vat_id  # BR-S-02, BR-Z-02, BR-AE-02
            or (category == "O" and seller.registration_number)  # BR-CO-26
        )
        and (category != "AE" or _is_vat_id_allowed(buyer, category))  # BR-AE-02
    )


def _is_vat_id_allowed(party: Party, category: str) -> bool:
    """Return whether a party has a VAT id that can be stated as such.

    It cannot where tax does not apply (BR-O-02), nor without a country's prefix (BR-CO-09).
    """
    if category == "O" or not party.vat_id:
        return False
    prefix = party.vat_id[:2]
    if prefix in (party.country, "EL", "XI"):
        return True
    is_a_country = re.fullmatch("[A-Z]{2}", prefix) and prefix != "EU"
    return bool(is_a_country and get_cc_module(prefix.lower(), "vat"))


def _address_lines(party: Party) -> list[str]:
    """Return an address in the three lines that there are; the last one has the rest."""
    lines = (party.address or "").splitlines()
    first, rest = lines[: _MOST_ADDRESS_LINES - 1], lines[_MOST_ADDRESS_LINES - 1 :]
    return [*first, *([", ".join(rest)] if rest else [])]
