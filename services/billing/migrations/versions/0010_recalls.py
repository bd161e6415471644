"""Recalls, and the events that are taken back."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0010"
down_revision = "0009"

_TABLES = ("recalls", "recalled_arrivals", "event_reversals")


def _key(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, ascii_id(length), primary_key=True)


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, ascii_id(length), nullable=False)


def upgrade() -> None:
    reason = sa.String(500).with_variant(
        mysql.VARCHAR(500, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    op.create_table(
        "recalls",
        _key("id", 36),
        _text("model", 64),
        _text("version", 64),
        sa.Column("reason", reason, nullable=False),
        _text("by", 64),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        _text("reached", 36),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.UniqueConstraint("model", "version"),
    )
    op.create_table(
        "recalled_arrivals",
        sa.Column("time", UtcDateTime(), primary_key=True),
        _key("id", 64),
        _key("source", 128),
        _text("account", 36),
        _text("recall_id", 36),
    )
    op.create_table(
        "event_reversals",
        sa.Column("time", UtcDateTime(), primary_key=True),
        _key("id", 64),
        _key("source", 128),
        _text("account", 36),
        sa.Column("cause", ascii_id(36), nullable=False, index=True),
        sa.Column("amount_high", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=True),
    )


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
