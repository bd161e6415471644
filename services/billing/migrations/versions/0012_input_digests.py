"""The digest of a usage event's input, for receipts; earlier events have none."""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import ascii_id

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("usage_events", sa.Column("input_sha256", ascii_id(64)))


def downgrade() -> None:
    op.drop_column("usage_events", "input_sha256")
