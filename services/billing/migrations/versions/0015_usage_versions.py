"""Sums of usage by version of a model, from the upgrade on."""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "usage_versions",
        sa.Column("account", ascii_id(36), primary_key=True),
        sa.Column("hour", UtcDateTime(), primary_key=True),
        sa.Column("model", ascii_id(64), primary_key=True),
        sa.Column("price_id", ascii_id(36), primary_key=True),
        sa.Column("version", ascii_id(64), primary_key=True),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("amount_high", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("amount", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("usage_versions")
