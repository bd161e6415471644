"""The ledger: entries whose postings add up to zero, filled from what is stored."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from services.billing.ledger.opening import post_missing
from services.common.db.columns import Serial, UtcDateTime, ascii_id

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "ledger_entries",
        sa.Column("id", Serial, primary_key=True),
        sa.Column("kind", ascii_id(16), nullable=False),
        sa.Column("currency", ascii_id(3), nullable=False),
        sa.Column("reference", ascii_id(64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("digest", ascii_id(32), nullable=False),
    )
    op.create_table(
        "ledger_postings",
        sa.Column("entry_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("line", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("ledger", ascii_id(16), nullable=False),
        sa.Column("account", ascii_id(36), nullable=False),
        sa.Column("model", ascii_id(64), nullable=False),
        sa.Column("amount_high", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("amount", sa.BigInteger(), nullable=False),
    )
    for table in ("usage_events", "credits"):
        op.add_column(table, sa.Column("entry_id", sa.BigInteger(), nullable=True))
    post_missing(op.get_bind(), now=datetime.now(UTC))


def downgrade() -> None:
    for table in ("credits", "usage_events"):
        op.drop_column(table, "entry_id")
    for table in ("ledger_postings", "ledger_entries"):
        op.drop_table(table)
