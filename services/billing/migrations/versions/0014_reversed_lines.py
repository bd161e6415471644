"""Sums of what was taken back by the line of an invoice; the month and digest of a credit."""

import sqlalchemy as sa
from alembic import op

from services.billing.corrections.summing import add_missing
from services.common.db.columns import ascii_id

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "reversed_lines",
        sa.Column("account", ascii_id(36), primary_key=True),
        sa.Column("period", ascii_id(7), primary_key=True),
        sa.Column("model", ascii_id(64), primary_key=True),
        sa.Column("price_id", ascii_id(36), primary_key=True),
        sa.Column("amount_high", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("returned_high", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("returned", sa.BigInteger(), nullable=False),
    )
    op.add_column("account_credits", sa.Column("period", ascii_id(7), nullable=True))
    op.add_column("account_credits", sa.Column("digest", ascii_id(32), nullable=True))
    add_missing(op.get_bind())


def downgrade() -> None:
    for column in ("digest", "period"):
        op.drop_column("account_credits", column)
    op.drop_table("reversed_lines")
