"""Monthly fees and descriptions of plans, and accounts that are back on the default plan."""

import sqlalchemy as sa
from alembic import op

from services.billing.models import DESCRIPTION_CHARS, exact_text

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
    for column in ("monthly_fee", "monthly_fee_high", "description"):
        op.drop_column("plans", column)
