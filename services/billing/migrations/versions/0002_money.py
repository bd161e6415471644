"""Prepaid money: credit reservations, credits and idempotency records."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import Serial, UtcDateTime, ascii_id

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "slices",
        sa.Column("account", ascii_id(36), primary_key=True),
        sa.Column("journal", ascii_id(36), primary_key=True),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("granted", "settled", "returned", "spent", "ask_no")
        ),
        sa.Column("demand", sa.Double(), nullable=False),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.Index(None, "journal"),
    )
    reason = sa.String(500).with_variant(
        mysql.VARCHAR(500, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    op.create_table(
        "credits",
        sa.Column("id", Serial, primary_key=True),
        sa.Column("account", ascii_id(36), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", ascii_id(3), nullable=False),
        sa.Column("reason", reason, nullable=False),
        sa.Column("by", ascii_id(64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Index(None, "account"),
    )
    op.create_table(
        "idempotency_records",
        sa.Column("caller", ascii_id(64), primary_key=True),
        sa.Column("key", ascii_id(255), primary_key=True),
        sa.Column("path", ascii_id(128), primary_key=True),
        sa.Column("request", ascii_id(32), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("response", sa.JSON()),
    )
    op.add_column(
        "journals", sa.Column("lost", sa.Boolean(), nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    op.drop_column("journals", "lost")
    for table in ("idempotency_records", "credits", "slices"):
        op.drop_table(table)
