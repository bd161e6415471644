"""An invoice as it is stored."""

from datetime import UTC, datetime

from services.billing.invoices.parties import Party, Tax
from services.billing.invoices.schemas import CreditLine, InvoiceRead, LineRead, UnitPrice

NOT_XML = "a\x00\x0b\x1f\ufffe\uffff"
SELLER = Party(name="Modelle GmbH", address="Berlin", country="DE", vat_id="DE136695976")
BUYER = Party(name="Ada", address="Paris", country="FR", vat_id="FR83404833048")
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
    number: int = 1,
    *,
    seller: Party = SELLER,
    buyer: Party = BUYER,
    rate: str = "0",
    taxed: str = "No tax applies.",
    reason: str = "",
) -> InvoiceRead:
    """Return an invoice taxed at a rate, for a reason, and reduced by a credit if it has one."""
    return InvoiceRead(
        id=str(number),
        number=f"INV-{number:06d}",
        issued_at=datetime(2026, 11, 1, tzinfo=UTC),
        account="ada",
        period="2026-10",
        currency="USD",
        seller=seller,
        buyer=buyer,
        lines=[LINE],
        credits=[CreditLine(id="1", reason=reason, amount="1")] if reason else [],
        subtotal="0",
        tax=Tax(rate=rate, amount="0", reason=taxed),
        total="0",
        rounding="Half to even.",
    )
