"""Plans, accounts, usage events and their journals."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import Serial, UtcDateTime, ascii_id

revision = "0001"
down_revision = None

_TABLES = (
    "plans",
    "prices",
    "account_plans",
    "accounts",
    "periods",
    "usage_event_keys",
    "usage_event_conflicts",
    "usage_events",
    "usage_hours",
    "usage_months",
    "journals",
    "journal_ranges",
)


def _key(name: str, length: int) -> sa.Column[Any]:
    return sa.Column(name, ascii_id(length), primary_key=True)


def _text(name: str, length: int, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, ascii_id(length), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, UtcDateTime(), nullable=nullable)


def _sums() -> list[sa.Column[Any]]:
    return [_number("requests"), _number("rows"), _number("amount")]


def upgrade() -> None:
    plan_name = sa.String(100).with_variant(
        mysql.VARCHAR(100, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    op.create_table(
        "plans",
        _key("id", 36),
        sa.Column("name", plan_name, nullable=False),
        _text("currency", 3),
        _text("billing", 8),
        sa.Column("rate_per_second", sa.Double()),
        sa.Column("rate_burst", sa.Double()),
        _moment("created_at"),
    )
    op.create_table(
        "prices",
        _key("id", 36),
        sa.Column("plan_id", ascii_id(36), sa.ForeignKey("plans.id"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        _text("model", 64, nullable=True),
        _number("included_requests"),
        sa.Column("tiers", sa.JSON(), nullable=False),
        sa.UniqueConstraint("plan_id", "position"),
    )
    op.create_table(
        "account_plans",
        sa.Column("id", Serial, primary_key=True),
        _text("account", 36),
        sa.Column("plan_id", ascii_id(36), sa.ForeignKey("plans.id"), nullable=False),
        _moment("effective_from"),
        _moment("created_at"),
        sa.Index(None, "account", "effective_from"),
    )
    op.create_table(
        "accounts",
        _key("id", 36),
        _text("currency", 3),
        _number("available"),
        _moment("created_at"),
    )
    op.create_table("periods", _key("id", 7), _moment("closed_at", nullable=True))
    op.create_table(
        "usage_event_keys",
        _key("id", 64),
        _key("source", 128),
        _text("fingerprint", 32),
        _moment("time"),
    )
    op.create_table(
        "usage_event_conflicts",
        _key("id", 64),
        _key("source", 128),
        _key("fingerprint", 32),
        _text("account", 36),
        _text("model", 64),
        _number("rows"),
        _moment("received_at"),
    )
    op.create_table(
        "usage_events",
        sa.Column("time", UtcDateTime(), primary_key=True),
        _key("id", 64),
        _key("source", 128),
        _text("account", 36),
        _text("model", 64),
        _text("version", 64),
        _number("rows"),
        _text("client_id", 64, nullable=True),
        _text("price_id", 36),
        _number("amount"),
        _text("period", 7),
        sa.Column("late", sa.Boolean(), nullable=False),
        _text("journal", 128),
        _number("sequence", nullable=True),
        _moment("received_at"),
        sa.Index(None, "account", "time"),
    )
    op.create_table(
        "usage_hours",
        _key("account", 36),
        sa.Column("hour", UtcDateTime(), primary_key=True),
        _key("model", 64),
        _key("price_id", 36),
        *_sums(),
    )
    op.create_table(
        "usage_months",
        _key("account", 36),
        _key("period", 7),
        _key("price_id", 36),
        *_sums(),
    )
    op.create_table(
        "journals",
        _key("id", 128),
        _number("reported"),
        _number("highest"),
        _number("received"),
        sa.Column("closed", sa.Boolean(), nullable=False),
        _moment("heard_at"),
        _moment("complete_at"),
    )
    op.create_table(
        "journal_ranges",
        _key("journal", 128),
        sa.Column("first", sa.BigInteger(), primary_key=True, autoincrement=False),
        _number("last"),
    )


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
