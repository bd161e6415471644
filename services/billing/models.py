"""The tables of the billing service.

Amounts are integers of 10⁻⁹ of the currency unit, each in two columns (see `amounts.py`).
Rows of the metering tables are only added or incremented; nothing is priced twice.
"""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    false,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column, relationship

from services.billing import amounts
from services.billing.plans.columns import TierList
from services.billing.plans.pricing import Tier
from services.common.db.columns import Serial, UtcDateTime, ascii_id, new_metadata

PLAN_NAME_CHARS = 100
DESCRIPTION_CHARS = 500
REASON_CHARS = 500
TAGS_CHARS = 700
"""Five tags as JSON have at most 671."""


class Base(DeclarativeBase):
    metadata = new_metadata()


def exact_text(length: int) -> String:
    """Return the type of Unicode text that every database compares byte for byte."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def high_part() -> MappedColumn[int]:
    """Return the high column of an amount; rows written by the version before have 0."""
    return mapped_column(BigInteger, server_default="0")


def low_part(name: str) -> MappedColumn[int]:
    """Return the low column of an amount, which has the amount's own name."""
    return mapped_column(name, BigInteger)


# -- prices and money ------------------------------------------------------------------------------


class Plan(Base):
    """What using the models costs; immutable, and its `id` is derived from its content."""

    __tablename__ = "plans"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    name: Mapped[str] = mapped_column(exact_text(PLAN_NAME_CHARS))
    currency: Mapped[str] = mapped_column(ascii_id(3))
    billing: Mapped[Literal["postpaid", "prepaid"]] = mapped_column(ascii_id(8))
    rate_per_second: Mapped[float | None] = mapped_column(Double)
    rate_burst: Mapped[float | None] = mapped_column(Double)
    public: Mapped[bool] = mapped_column(server_default=false())
    """Whether it is listed for everyone."""
    description: Mapped[str] = mapped_column(exact_text(DESCRIPTION_CHARS), server_default="")
    monthly_fee_high: Mapped[int] = high_part()
    monthly_fee_low: Mapped[int] = mapped_column("monthly_fee", BigInteger, server_default="0")
    trial_credit: Mapped[str | None] = mapped_column(ascii_id(64))  # its JSON
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    prices: Mapped[list["Price"]] = relationship(order_by="Price.position", lazy="raise")


class Price(Base):
    """What one model costs under a plan, or all models without their own price."""

    __tablename__ = "prices"
    __table_args__ = (UniqueConstraint("plan_id", "position"),)

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    plan_id: Mapped[str] = mapped_column(ascii_id(36), ForeignKey("plans.id"))
    position: Mapped[int]
    model: Mapped[str | None] = mapped_column(ascii_id(64))
    included_requests: Mapped[int] = mapped_column(BigInteger)
    tiers: Mapped[tuple[Tier, ...]] = mapped_column(TierList)


class AccountPlan(Base):
    """From when an account is on a plan.

    The assignment that started last is in force; of two with the same start, the later row.
    """

    __tablename__ = "account_plans"
    __table_args__ = (Index(None, "account", "effective_from"),)

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    plan_id: Mapped[str] = mapped_column(ascii_id(36), ForeignKey("plans.id"))
    follows_default: Mapped[bool] = mapped_column(server_default=false())
    """Whether it is on the default plan instead, whichever that is; `plan_id` is a former one."""
    effective_from: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Account(Base):
    """An account that has been charged or credited, which fixed its currency.

    A transaction that changes `available` or a reservation of the account locks this row.
    """

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    currency: Mapped[str] = mapped_column(ascii_id(3))
    available_high: Mapped[int] = high_part()
    available_low: Mapped[int] = low_part("available")
    """Prepaid money that no process has reserved; only late events take it below zero."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CreditReservation(Base):
    """What one process run may spend and has spent of an account; all amounts are cumulative.

    `settled` never exceeds `granted`. The difference is held: it is neither available to others nor
    charged yet. While a journal is lost its rows stay without money, so that a process that was
    only cut off can continue counting.
    """

    __tablename__ = "slices"  # like `ask_no` and `asked_at`, a name from an earlier version
    __table_args__ = (Index(None, "journal"),)

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    journal: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    granted_high: Mapped[int] = high_part()
    granted_low: Mapped[int] = low_part("granted")
    settled_high: Mapped[int] = high_part()
    settled_low: Mapped[int] = low_part("settled")
    """What the received events spent, charged or not."""
    returned_high: Mapped[int] = high_part()
    returned_low: Mapped[int] = low_part("returned")
    """`settled` minus what was charged.

    That is what duplicates and rejected events spent, which went back to the account, minus what
    was charged without having been spent from this reservation.
    """
    spent_high: Mapped[int] = high_part()
    spent_low: Mapped[int] = low_part("spent")
    """As last reported."""
    sequence: Mapped[int] = mapped_column("ask_no", BigInteger)
    """Of the last lease request."""
    demand: Mapped[float] = mapped_column(Double)
    """Requests per second, as last reported; determines this process's share of a rate limit."""
    requested_at: Mapped[datetime] = mapped_column("asked_at", UtcDateTime)


class LedgerEntry(Base):
    """A movement of money; append-only. The amounts of its postings add up to zero.

    See docs/adr/0018.
    """

    __tablename__ = "ledger_entries"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)
    kind: Mapped[str] = mapped_column(ascii_id(16))
    """What caused it: `usage`, `credit`, …"""
    currency: Mapped[str] = mapped_column(ascii_id(3))
    reference: Mapped[str] = mapped_column(ascii_id(64))
    """The id of what caused it; empty for usage, whose events have the entry's id."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    digest: Mapped[str] = mapped_column(ascii_id(32))
    """Of the entry and its postings, so that `billing verify` finds any changed cell."""


class LedgerPosting(Base):
    """One line of a ledger entry: a debit (positive) or a credit (negative)."""

    __tablename__ = "ledger_postings"

    entry_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ledger: Mapped[str] = mapped_column(ascii_id(16))
    """The account of the ledger, such as `receivable` or `revenue`."""
    account: Mapped[str] = mapped_column(ascii_id(36))
    """Whose money it is; empty in ledgers of the seller alone, such as `revenue`."""
    model: Mapped[str] = mapped_column(ascii_id(64))
    """Whose revenue it is; empty elsewhere."""
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")


class Credit(Base):
    """Prepaid money that was added without a payment or, if negative, has expired; append-only."""

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
    entry_id: Mapped[int | None] = mapped_column(BigInteger)
    """Its ledger entry; null if the version before the ledger stored it."""

    @property
    def amount(self) -> int:
        return amounts.join(self.amount_high, self.amount_low)


class IdempotencyRecord(Base):
    """A call that moves money, under its idempotency key: running or answered."""

    __tablename__ = "idempotency_records"

    caller: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    key: Mapped[str] = mapped_column(ascii_id(255), primary_key=True)
    path: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    request: Mapped[str] = mapped_column(ascii_id(32))
    """Digest of the request body."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    response: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    """Null while the call runs."""


# -- usage -----------------------------------------------------------------------------------------


class Period(Base):
    """A UTC month. Ingest takes a shared lock on its row, closing it an exclusive one."""

    __tablename__ = "periods"

    id: Mapped[str] = mapped_column(ascii_id(7), primary_key=True)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    bills_fees: Mapped[bool] = mapped_column(server_default=false())
    """Whether it is closed, and not by the version before, which bills no monthly fees."""
    forced_reason: Mapped[str | None] = mapped_column(exact_text(REASON_CHARS))
    """Why it was closed although usage was missing."""
    invoiced_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the last of its invoices was issued."""


class EventKey(Base):
    """The identity of every event ever accepted: a narrow row that outlives the event's.

    `id` comes first, so that an event can be found by its id alone.
    """

    __tablename__ = "usage_event_keys"

    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    source: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(ascii_id(32))
    """Of subject, model and rows; a repeat with another fingerprint is a conflict."""
    time: Mapped[datetime] = mapped_column(UtcDateTime)
    """The first part of the event's primary key."""


class EventConflict(Base):
    """A repeat with another payload: never billed, kept for investigation."""

    __tablename__ = "usage_event_conflicts"

    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    source: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(ascii_id(32), primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    model: Mapped[str] = mapped_column(ascii_id(64))
    rows: Mapped[int] = mapped_column(BigInteger)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)


class UsageEvent(Base):
    """An accepted, priced usage event; callers see it as a receipt.

    The primary key begins with the time: rows arrive nearly in that order, and a table partitioned
    by time needs it in every unique key.
    """

    __tablename__ = "usage_events"
    __table_args__ = (Index("ix_usage_events_account_time", "account", "time", "id", "source"),)

    time: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    source: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    account: Mapped[str] = mapped_column(ascii_id(36))
    model: Mapped[str] = mapped_column(ascii_id(64))
    version: Mapped[str] = mapped_column(ascii_id(64))
    rows: Mapped[int] = mapped_column(BigInteger)
    client_id: Mapped[str | None] = mapped_column(ascii_id(64))
    api_key: Mapped[str | None] = mapped_column(ascii_id(64))
    tags: Mapped[str | None] = mapped_column(ascii_id(TAGS_CHARS))
    """A JSON object, sorted by name; null without tags."""
    input_sha256: Mapped[str | None] = mapped_column(ascii_id(64))
    """Of the request's body; null for events of earlier versions."""
    price_id: Mapped[str] = mapped_column(ascii_id(36))
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
    period: Mapped[str] = mapped_column(ascii_id(7))
    """The month it is billed in: its own, or the open month if its own was closed."""
    late: Mapped[bool]
    """Whether it arrived after its month was closed or its process's credit was reclaimed."""
    journal: Mapped[str] = mapped_column(ascii_id(128))
    sequence: Mapped[int | None] = mapped_column(BigInteger)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    entry_id: Mapped[int | None] = mapped_column(BigInteger)
    """The ledger entry that it is part of; null if it is free or the version before stored it."""

    @property
    def amount(self) -> int:
        return amounts.join(self.amount_high, self.amount_low)


class UsageHour(Base):
    """Sums of the usage events of one hour."""

    __tablename__ = "usage_hours"

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    hour: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    model: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    price_id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")


class UsageVersion(Base):
    """The sums of `usage_hours`, by version. Events of the version before are missing."""

    __tablename__ = "usage_versions"

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    hour: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    model: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    price_id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    version: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")


class UsageBreakdown(Base):
    """Sums of the usage events of one hour that have one value in a dimension.

    The dimensions are `api_key` and `tag:<name>`, and `version` of events of the version before.
    """

    __tablename__ = "usage_breakdowns"

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    dimension: Mapped[str] = mapped_column(ascii_id(68), primary_key=True)
    hour: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    value: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")


class UsageMonth(Base):
    """Sums of one month under one price; `requests` determines the next request's tier."""

    __tablename__ = "usage_months"
    __table_args__ = (Index(None, "period"),)

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    period: Mapped[str] = mapped_column(ascii_id(7), primary_key=True)
    price_id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
