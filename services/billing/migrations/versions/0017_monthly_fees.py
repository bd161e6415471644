"""Monthly fees, descriptions and trial credit of plans; accounts back on the default plan."""

import sqlalchemy as sa
from alembic import op

from services.billing.models import DESCRIPTION_CHARS, exact_text
from services.common.db.columns import UtcDateTime, ascii_id

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column(
        "plans",
        sa.Column("description", exact_text(DESCRIPTION_CHARS), nullable=False, server_default=""),
    )
    for column in ("monthly_fee_high", "monthly_fee"):
        op.add_column(
            "plans", sa.Column(column, sa.BigInteger(), nullable=False, server_default="0")
        )
    op.add_column("plans", sa.Column("trial_credit", ascii_id(64), nullable=True))
    op.create_table(
        "trials",
        sa.Column("account", ascii_id(36), primary_key=True),
        sa.Column("plan_id", ascii_id(36), nullable=False),
        sa.Column("currency", ascii_id(3), nullable=False),
        sa.Column("amount_high", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("starts_at", UtcDateTime(), nullable=False),
        sa.Column("granted", sa.Boolean(), nullable=False),
        sa.Column("expired_high", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("expired", sa.BigInteger(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=True, index=True),
    )
    op.add_column(
        "account_plans",
        sa.Column("follows_default", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column(
        "periods",
        sa.Column("bills_fees", sa.Boolean(), nullable=False, server_default=sa.false()),
    )


def downgrade() -> None:
    op.drop_column("periods", "bills_fees")
    op.drop_column("account_plans", "follows_default")
    op.drop_table("trials")
    op.drop_column("plans", "trial_credit")
    for column in ("monthly_fee", "monthly_fee_high", "description"):
        op.drop_column("plans", column)
