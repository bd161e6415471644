"""Invoices in responses; amounts are decimal strings in the invoice's currency."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.billing.fields import PeriodId, Reason
from services.billing.invoices.parties import Party, Tax


class UnitPrice(BaseModel):
    """What a request costs up to the `up_to_requests`-th of the month; null means no limit."""

    up_to_requests: int | None
    per_request: str
    per_row: str


LineKind = Literal["usage", "monthly_fee"]


class LineRead(BaseModel):
    """What is billed for one model under one price, or as the monthly fee of a plan."""

    kind: LineKind
    model: str | None = Field(description="Null for a monthly fee.")
    price_id: str = Field(description="Of the price; for a monthly fee, the plan's id.")
    versions: list[str] = Field(description="The versions that answered, sorted.")
    requests: int
    rows: int
    unit_prices: list[UnitPrice]
    included_requests: int
    description: str | None = Field(
        default=None, description="For a monthly fee: the plan's name, and the days if not all."
    )
    amount: str = Field(description="The exact sum of its events' amounts, or fee pro rata by day.")
    rounded: str = Field(description="`amount` in the currency's minor unit, half to even.")


class CreditLine(BaseModel):
    """What reduces the total."""

    id: str
    reason: str
    amount: str


class InvoiceSummary(BaseModel):
    """An invoice in a list."""

    id: str
    number: str
    account: str
    period: str
    currency: str
    total: str
    issued_at: datetime


class InvoiceBody(BaseModel):
    """All of an invoice but its identity; `total` = `subtotal` + tax − Σ credits."""

    account: str
    period: str
    currency: str
    seller: Party
    buyer: Party
    lines: list[LineRead]
    credits: list[CreditLine]
    subtotal: str = Field(description="The sum of the lines' `rounded`.")
    tax: Tax
    total: str
    rounding: str = Field(description="How amounts were rounded.")


class InvoiceRead(InvoiceBody):
    """What an account is billed for a month. It never changes."""

    id: str
    number: str
    issued_at: datetime


class InvoicePreview(InvoiceBody):
    """The invoice of a month as it would be now."""

    id: None = None
    number: None = None


class InvoicePage(BaseModel):
    invoices: list[InvoiceSummary]
    next_cursor: str | None = Field(description="Null on the last page.")


class BillingRunCreate(BaseModel):
    """The month to close. Without `force`, it is refused while usage is missing."""

    model_config = ConfigDict(extra="forbid")

    period: PeriodId
    force: Annotated[bool, Field(strict=True)] = False
    reason: Reason | None = None


class IssuedInvoice(BaseModel):
    id: str
    number: str
    account: str
    currency: str
    total: str


class FailedInvoice(BaseModel):
    """An account that got no invoice, and why."""

    account: str
    reason: str


class BillingRunRead(BaseModel):
    """A closed month and its invoices."""

    period: str
    invoices: list[IssuedInvoice]
    failed: list[FailedInvoice] = Field(
        default=[], description="Accounts that got no invoice; a repeat of the run tries again."
    )
