"""An index to read the sums of all accounts for one month."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_index("ix_usage_months_period", "usage_months", ["period"])


def downgrade() -> None:
    op.drop_index("ix_usage_months_period", "usage_months")
