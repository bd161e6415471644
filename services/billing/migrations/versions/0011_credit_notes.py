"""Credit notes and adjustments."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0011"
down_revision = "0010"


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, ascii_id(length), nullable=False)


def _amount(name: str) -> list[sa.Column[Any]]:
    return [
        sa.Column(f"{name}_high", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column(name, sa.BigInteger(), nullable=False),
    ]


def _reason() -> sa.Column[str]:
    text = sa.String(500).with_variant(
        mysql.VARCHAR(500, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    return sa.Column("reason", text, nullable=False)


def upgrade() -> None:
    op.create_table(
        "credit_notes",
        sa.Column("id", ascii_id(36), primary_key=True),
        _text("series", 64),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        _text("number", 32),
        sa.Column("invoice_id", ascii_id(36), nullable=False, index=True),
        _text("account", 36),
        _text("currency", 3),
        *_amount("amount"),
        *_amount("to_balance"),
        sa.Column("lines", sa.JSON(), nullable=False),
        _reason(),
        _text("by", 64),
        sa.Column("issued_at", UtcDateTime(), nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=True),
        _text("digest", 32),
        sa.UniqueConstraint("series", "sequence"),
    )
    op.create_table(
        "adjustments",
        sa.Column("id", ascii_id(36), primary_key=True),
        _reason(),
        _text("by", 64),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )


def downgrade() -> None:
    for table in ("adjustments", "credit_notes"):
        op.drop_table(table)
