"""Invoices, billing profiles, and months that are closed."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0007"
down_revision = "0006"

_TABLES = (
    "billing_profiles",
    "number_series",
    "late_events",
    "invoices",
    "invoice_lines",
    "account_credits",
)


def _exact(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def _key(name: str, length: int) -> sa.Column[Any]:
    return sa.Column(name, ascii_id(length), primary_key=True)


def _text(name: str, length: int, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, ascii_id(length), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _moment(name: str) -> sa.Column[Any]:
    return sa.Column(name, UtcDateTime(), nullable=False)


def _amount(name: str) -> list[sa.Column[Any]]:
    return [
        sa.Column(f"{name}_high", sa.BigInteger(), nullable=False, server_default="0"),
        _number(name),
    ]


def upgrade() -> None:
    op.create_table(
        "billing_profiles",
        _key("account", 36),
        sa.Column("name", _exact(200), nullable=False),
        sa.Column("address", _exact(500), nullable=False),
        _text("country", 2),
        _text("vat_id", 32, nullable=True),
        sa.Column("email", _exact(200), nullable=False),
        _moment("updated_at"),
    )
    op.create_table("number_series", _key("id", 64), _number("last"))
    op.create_table(
        "late_events",
        _key("period", 7),
        _key("account", 36),
        sa.Column("time", UtcDateTime(), primary_key=True),
        _key("id", 64),
        _key("source", 128),
    )
    op.create_table(
        "invoices",
        _key("id", 36),
        _text("series", 64),
        _number("sequence"),
        _text("number", 32),
        _text("account", 36),
        sa.Column("period", ascii_id(7), nullable=False, index=True),
        _text("currency", 3),
        *_amount("total"),
        _moment("issued_at"),
        sa.Column("document", sa.JSON(), nullable=False),
        _number("entry_id", nullable=True),
        _text("digest", 32),
        sa.UniqueConstraint("account", "period"),
        sa.UniqueConstraint("series", "sequence"),
    )
    op.create_table(
        "invoice_lines",
        _key("invoice_id", 36),
        sa.Column("line", sa.Integer(), primary_key=True, autoincrement=False),
        _text("kind", 16),
        _text("model", 64),
        _text("price_id", 36),
        _number("requests"),
        _number("rows"),
        *_amount("amount"),
        *_amount("rounded"),
    )
    op.create_table(
        "account_credits",
        _key("id", 36),
        _text("account", 36),
        _text("currency", 3),
        _text("cause", 36),
        _text("model", 64),
        _text("price_id", 36),
        sa.Column("reason", _exact(700), nullable=False),
        *_amount("amount"),
        sa.Column("includes_tax", sa.Boolean(), nullable=False),
        _moment("created_at"),
        _text("invoice_id", 36, nullable=True),
        sa.Index(None, "account", "invoice_id"),
    )
    op.add_column("periods", sa.Column("forced_reason", _exact(500), nullable=True))
    op.add_column("periods", sa.Column("invoiced_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    for column in ("invoiced_at", "forced_reason"):
        op.drop_column("periods", column)
    for table in reversed(_TABLES):
        op.drop_table(table)
