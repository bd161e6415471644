"""The tables of invoices. Invoices and their lines are only added, never changed."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from services.billing import amounts
from services.billing.models import Base, exact_text, high_part, low_part
from services.common.db.columns import UtcDateTime, ascii_id

PARTY_CHARS = 200
ADDRESS_CHARS = 500
NUMBER_CHARS = 32


class BillingProfile(Base):
    """Who an account's invoices are addressed to."""

    __tablename__ = "billing_profiles"

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    name: Mapped[str] = mapped_column(exact_text(PARTY_CHARS))
    address: Mapped[str] = mapped_column(exact_text(ADDRESS_CHARS))
    country: Mapped[str] = mapped_column(ascii_id(2))
    vat_id: Mapped[str | None] = mapped_column(ascii_id(32))
    email: Mapped[str] = mapped_column(exact_text(PARTY_CHARS))
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class NumberSeries(Base):
    """The last number that a seller has used for a kind of document.

    A transaction that issues a document locks the row, so that numbers have no gaps.
    """

    __tablename__ = "number_series"

    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    last: Mapped[int] = mapped_column(BigInteger)


class LateEvent(Base):
    """A usage event that is billed in a later month than its own, because that was closed."""

    __tablename__ = "late_events"

    period: Mapped[str] = mapped_column(ascii_id(7), primary_key=True)
    """The month it is billed in."""
    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    time: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    source: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)


class Invoice(Base):
    """What an account is billed for a month."""

    __tablename__ = "invoices"
    __table_args__ = (UniqueConstraint("account", "period"), UniqueConstraint("series", "sequence"))

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    series: Mapped[str] = mapped_column(ascii_id(64))
    sequence: Mapped[int] = mapped_column(BigInteger)
    number: Mapped[str] = mapped_column(ascii_id(NUMBER_CHARS))
    account: Mapped[str] = mapped_column(ascii_id(36))
    period: Mapped[str] = mapped_column(ascii_id(7), index=True)
    currency: Mapped[str] = mapped_column(ascii_id(3))
    total_high: Mapped[int] = high_part()
    total_low: Mapped[int] = low_part("total")
    issued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    """All that the API shows of it."""
    entry_id: Mapped[int | None] = mapped_column(BigInteger)
    """The ledger entry of the fees, tax and rounding of all invoices issued together, if any."""
    digest: Mapped[str] = mapped_column(ascii_id(32))
    """Digest of all other columns, and of its lines."""

    @property
    def total(self) -> int:
        return amounts.join(self.total_high, self.total_low)


class InvoiceLine(Base):
    """What an invoice bills for one model under one price, or as the monthly fee of a plan.

    A fee has no model, and the plan's id as `price_id`.
    """

    __tablename__ = "invoice_lines"

    invoice_id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(ascii_id(16))
    model: Mapped[str] = mapped_column(ascii_id(64))
    price_id: Mapped[str] = mapped_column(ascii_id(36))
    requests: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
    rounded_high: Mapped[int] = high_part()
    rounded_low: Mapped[int] = low_part("rounded")


class ReversedLine(Base):
    """Sums of an account's events that were taken back, by the line of an invoice they belong to.

    A transaction that changes or relies on them locks the account's row.
    """

    __tablename__ = "reversed_lines"

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    period: Mapped[str] = mapped_column(ascii_id(7), primary_key=True)
    model: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    price_id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
    """What the events had cost."""
    returned_high: Mapped[int] = high_part()
    returned_low: Mapped[int] = low_part("returned")
    """What of it returned to the prepaid balance."""

    @property
    def amount(self) -> int:
        return amounts.join(self.amount_high, self.amount_low)

    @property
    def returned(self) -> int:
        return amounts.join(self.returned_high, self.returned_low)


class AccountCredit(Base):
    """Postpaid money given back, which reduces the account's next invoice."""

    __tablename__ = "account_credits"
    __table_args__ = (Index(None, "account", "invoice_id"),)

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    currency: Mapped[str] = mapped_column(ascii_id(3))
    cause: Mapped[str] = mapped_column(ascii_id(36))
    """The recall or adjustment, or the invoice that left a remainder."""
    model: Mapped[str] = mapped_column(ascii_id(64))
    price_id: Mapped[str] = mapped_column(ascii_id(36))
    """Like `model`, empty if it is the remainder of another credit."""
    reason: Mapped[str] = mapped_column(exact_text(700))
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
    """It grows until an invoice uses it; without tax, it is the exact sum of events."""
    includes_tax: Mapped[bool]
    """Whether it is rounded and with tax.

    It is so if its usage is on an invoice, whose tax applies, or if it is the remainder of a credit
    that was larger than an invoice.
    """
    period: Mapped[str | None] = mapped_column(ascii_id(7))
    """The month of its usage; null for such remainders, and if the version before stored it.

    Without tax, it waits for the invoice of this month.
    """
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    invoice_id: Mapped[str | None] = mapped_column(ascii_id(36))
    """The invoice that it reduced."""
    digest: Mapped[str | None] = mapped_column(ascii_id(32))
    """Of everything else in the row; null if the version before stored it."""

    @property
    def amount(self) -> int:
        return amounts.join(self.amount_high, self.amount_low)
