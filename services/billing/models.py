"""The tables of the billing service, all on one page.

Amounts are integers of 10⁻⁹ of the currency unit, each in two columns: `services/billing/wide.py`.
Rows of the metering tables are only added or counted up; nothing here is priced again.
"""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    Index,
    String,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column, relationship

from services.billing import wide
from services.billing.plans.pricing import Tier
from services.common.db import Serial, UtcDateTime, ascii_id, new_metadata

PLAN_NAME_CHARS = 100
REASON_CHARS = 500


class Base(DeclarativeBase):
    metadata = new_metadata()


def exact_text(length: int) -> String:
    """Unicode text, compared byte for byte on every database."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def high_part() -> MappedColumn[int]:
    """The high column of an amount; in rows of the version before it is 0."""
    return mapped_column(BigInteger, server_default="0")


def low_part(name: str) -> MappedColumn[int]:
    """The low column of an amount, which has the amount's own name."""
    return mapped_column(name, BigInteger)


class TierList(TypeDecorator[tuple[Tier, ...]]):
    """A price's tiers, as the JSON they have on the wire."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[Tier, ...] | None, dialect: Dialect) -> Any:
        return [tier.model_dump(mode="json") for tier in value or ()]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[Tier, ...]:
        return tuple(Tier.model_validate(tier) for tier in value)


# -- what is charged -----------------------------------------------------------------------------


class Plan(Base):
    """What using the models costs; never changed once stored, and its `id` follows from it."""

    __tablename__ = "plans"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    name: Mapped[str] = mapped_column(exact_text(PLAN_NAME_CHARS))
    currency: Mapped[str] = mapped_column(ascii_id(3))
    billing: Mapped[Literal["postpaid", "prepaid"]] = mapped_column(ascii_id(8))
    rate_per_second: Mapped[float | None] = mapped_column(Double)
    rate_burst: Mapped[float | None] = mapped_column(Double)
    public: Mapped[bool] = mapped_column(server_default=false())
    """Whether it is listed for everyone."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    prices: Mapped[list["Price"]] = relationship(order_by="Price.position", lazy="raise")


class Price(Base):
    """What one model costs under a plan, or every model without a price of its own there."""

    __tablename__ = "prices"
    __table_args__ = (UniqueConstraint("plan_id", "position"),)

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    plan_id: Mapped[str] = mapped_column(ascii_id(36), ForeignKey("plans.id"))
    position: Mapped[int]
    model: Mapped[str | None] = mapped_column(ascii_id(64))
    included_requests: Mapped[int] = mapped_column(BigInteger)
    tiers: Mapped[tuple[Tier, ...]] = mapped_column(TierList)


class AccountPlan(Base):
    """From when an account is on a plan; the latest that has begun holds, then the latest row."""

    __tablename__ = "account_plans"
    __table_args__ = (Index(None, "account", "effective_from"),)

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    plan_id: Mapped[str] = mapped_column(ascii_id(36), ForeignKey("plans.id"))
    effective_from: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Account(Base):
    """An account that has been charged or credited, and the currency that fixed.

    Whoever changes `available` or a slice of the account holds this row.
    """

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    currency: Mapped[str] = mapped_column(ascii_id(3))
    available_high: Mapped[int] = high_part()
    available_low: Mapped[int] = low_part("available")
    """Prepaid money that no process holds a slice of; below zero only by late events."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Slice(Base):
    """What one process run may spend of an account, and what it has; all amounts are cumulative.

    `settled` never exceeds `granted`, and the difference is held: it is not available to others,
    nor has it been charged. A row outlives its money while its journal is lost, so that a process
    that was only cut off goes on counting from where it stood.
    """

    __tablename__ = "slices"
    __table_args__ = (Index(None, "journal"),)

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    journal: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    granted_high: Mapped[int] = high_part()
    granted_low: Mapped[int] = low_part("granted")
    settled_high: Mapped[int] = high_part()
    settled_low: Mapped[int] = low_part("settled")
    """What the events that arrived spent, charged or not."""
    returned_high: Mapped[int] = high_part()
    returned_low: Mapped[int] = low_part("returned")
    """`settled` less what was charged: spent on repeats and rejected events and given back, less
    charged without having been spent from here."""
    spent_high: Mapped[int] = high_part()
    spent_low: Mapped[int] = low_part("spent")
    """As last reported."""
    ask_no: Mapped[int] = mapped_column(BigInteger)
    demand: Mapped[float] = mapped_column(Double)
    """Requests a second, as last reported; decides this process's share of a rate limit."""
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Credit(Base):
    """An entry of the ledger of prepaid money; only ever added."""

    __tablename__ = "credits"
    __table_args__ = (Index(None, "account"),)

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
    currency: Mapped[str] = mapped_column(ascii_id(3))
    reason: Mapped[str] = mapped_column(exact_text(REASON_CHARS))
    by: Mapped[str] = mapped_column(ascii_id(64))
    """The account of the administrator who entered it."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    @property
    def amount(self) -> int:
        return wide.join(self.amount_high, self.amount_low)


class IdempotencyRecord(Base):
    """A money-moving call under its key: being made, or made and answered."""

    __tablename__ = "idempotency_records"

    caller: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    key: Mapped[str] = mapped_column(ascii_id(255), primary_key=True)
    path: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    request: Mapped[str] = mapped_column(ascii_id(32))
    """Digest of what was asked."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    response: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    """Null while the call runs."""


# -- what was used -------------------------------------------------------------------------------


class Period(Base):
    """A UTC month. Ingest holds its row shared, closing it takes it alone."""

    __tablename__ = "periods"

    id: Mapped[str] = mapped_column(ascii_id(7), primary_key=True)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class EventKey(Base):
    """The identity of every event ever accepted: narrow, and outliving the receipts.

    `id` comes first so that a receipt is found by its id alone.
    """

    __tablename__ = "usage_event_keys"

    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    source: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(ascii_id(32))
    """Of subject, model and rows: a repeat that differs in it is a conflict."""
    time: Mapped[datetime] = mapped_column(UtcDateTime)
    """Leads to the receipt."""


class EventConflict(Base):
    """A repeat of an identity with another payload: on nobody's bill, kept to be looked into."""

    __tablename__ = "usage_event_conflicts"

    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    source: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(ascii_id(32), primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    model: Mapped[str] = mapped_column(ascii_id(64))
    rows: Mapped[int] = mapped_column(BigInteger)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Receipt(Base):
    """An accepted event and what it costs.

    The key begins with the time: rows arrive nearly in its order, and a table partitioned by time
    needs it in every unique key.
    """

    __tablename__ = "usage_events"
    __table_args__ = (Index(None, "account", "time"),)

    time: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    source: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    model: Mapped[str] = mapped_column(ascii_id(64))
    version: Mapped[str] = mapped_column(ascii_id(64))
    rows: Mapped[int] = mapped_column(BigInteger)
    client_id: Mapped[str | None] = mapped_column(ascii_id(64))
    price_id: Mapped[str] = mapped_column(ascii_id(36))
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
    period: Mapped[str] = mapped_column(ascii_id(7))
    """The month it is billed in: its own, or if that was closed the month that was open."""
    late: Mapped[bool]
    """It came when its month was closed, or when its process's slice had been given up."""
    journal: Mapped[str] = mapped_column(ascii_id(128))
    sequence: Mapped[int | None] = mapped_column(BigInteger)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)

    @property
    def amount(self) -> int:
        return wide.join(self.amount_high, self.amount_low)


class UsageHour(Base):
    """Sums of the receipts of one hour."""

    __tablename__ = "usage_hours"

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    hour: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    model: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    price_id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")


class UsageMonth(Base):
    """Sums of what is billed in one month under one price; `requests` finds the next one's tier."""

    __tablename__ = "usage_months"

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    period: Mapped[str] = mapped_column(ascii_id(7), primary_key=True)
    price_id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")


# -- where it came from --------------------------------------------------------------------------


class Journal(Base):
    """One process run's numbered events: how far it says it is, and how far we have heard."""

    __tablename__ = "journals"

    id: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    reported: Mapped[int] = mapped_column(BigInteger)
    """The highest sequence it reported as durable."""
    highest: Mapped[int] = mapped_column(BigInteger)
    """The highest sequence that arrived."""
    received: Mapped[int] = mapped_column(BigInteger)
    """How many distinct sequences arrived."""
    closed: Mapped[bool]
    lost: Mapped[bool]
    """Given up after a long silence, and not heard since."""
    purged: Mapped[bool]
    """Its slices have been deleted after a longer one; should it come back, it gets none."""
    heard_at: Mapped[datetime] = mapped_column(UtcDateTime)
    complete_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When everything known of had last arrived."""


class JournalRange(Base):
    """A run of sequences that arrived, from `first` to `last`; no two of a journal touch."""

    __tablename__ = "journal_ranges"

    journal: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    first: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last: Mapped[int] = mapped_column(BigInteger)
