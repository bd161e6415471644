"""Sums of usage by version, API key and tag, from the upgrade on."""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "usage_breakdowns",
        sa.Column("account", ascii_id(36), primary_key=True),
        sa.Column("dimension", ascii_id(68), primary_key=True),
        sa.Column("hour", UtcDateTime(), primary_key=True),
        sa.Column("value", ascii_id(64), primary_key=True),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("amount_high", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("amount", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("usage_breakdowns")
