"""The tables of corrections. Usage events themselves never change."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from services.billing import amounts
from services.billing.models import REASON_CHARS, Base, exact_text, high_part, low_part
from services.common.db.columns import UtcDateTime, ascii_id


class Recall(Base):
    """A standing rule that takes back every event answered by a version."""

    __tablename__ = "recalls"
    __table_args__ = (UniqueConstraint("model", "version"),)

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    model: Mapped[str] = mapped_column(ascii_id(64))
    version: Mapped[str] = mapped_column(ascii_id(64))
    reason: Mapped[str] = mapped_column(exact_text(REASON_CHARS))
    by: Mapped[str] = mapped_column(ascii_id(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reached: Mapped[str] = mapped_column(ascii_id(36))
    """The last account that is listed in `recall_accounts`, or done."""
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When all events that had arrived before were taken back."""


class RecallAccount(Base):
    """An account whose earlier events a recall has yet to take back, and how far that is.

    The position is that of the last event that was read; without a time, none was.
    """

    __tablename__ = "recall_accounts"

    recall_id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    id: Mapped[str] = mapped_column(ascii_id(64), server_default="")
    source: Mapped[str] = mapped_column(ascii_id(128), server_default="")


class RecalledArrival(Base):
    """An event of a recalled version that arrived after the recall, to be taken back."""

    __tablename__ = "recalled_arrivals"

    time: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    source: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    recall_id: Mapped[str] = mapped_column(ascii_id(36))


class EventReversal(Base):
    """That an event was taken back; its primary key is the event's, so it happens once."""

    __tablename__ = "event_reversals"
    __table_args__ = (Index(None, "cause"),)

    time: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    source: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    cause: Mapped[str] = mapped_column(ascii_id(36))
    """The recall or adjustment."""
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
    entry_id: Mapped[int | None] = mapped_column(BigInteger)
    """The ledger entry; null if the event was free."""

    @property
    def amount(self) -> int:
        return amounts.join(self.amount_high, self.amount_low)


class Adjustment(Base):
    """Named events that an administrator took back."""

    __tablename__ = "adjustments"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    reason: Mapped[str] = mapped_column(exact_text(REASON_CHARS))
    by: Mapped[str] = mapped_column(ascii_id(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CreditNote(Base):
    """A part of an invoice, or all of it, that is given back. It never changes."""

    __tablename__ = "credit_notes"
    __table_args__ = (UniqueConstraint("series", "sequence"),)

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    series: Mapped[str] = mapped_column(ascii_id(64))
    sequence: Mapped[int] = mapped_column(BigInteger)
    number: Mapped[str] = mapped_column(ascii_id(32))
    invoice_id: Mapped[str] = mapped_column(ascii_id(36), index=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    currency: Mapped[str] = mapped_column(ascii_id(3))
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
    """Including tax, in whole minor units."""
    to_balance_high: Mapped[int] = high_part()
    to_balance_low: Mapped[int] = low_part("to_balance")
    """The part of it that went to the prepaid balance, from which it had been paid."""
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """What it gives back of which line; with `events` if for events that were taken back."""
    reason: Mapped[str] = mapped_column(exact_text(REASON_CHARS))
    by: Mapped[str] = mapped_column(ascii_id(64))
    issued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    entry_id: Mapped[int | None] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(ascii_id(32))
    """Digest of all other columns."""

    @property
    def amount(self) -> int:
        return amounts.join(self.amount_high, self.amount_low)

    @property
    def to_balance(self) -> int:
        return amounts.join(self.to_balance_high, self.to_balance_low)
