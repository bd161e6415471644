"""How far a recall has come in each account."""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "recall_accounts",
        sa.Column("recall_id", ascii_id(36), primary_key=True),
        sa.Column("account", ascii_id(36), primary_key=True),
        sa.Column("time", UtcDateTime(), nullable=True),
        sa.Column("id", ascii_id(64), nullable=False, server_default=""),
        sa.Column("source", ascii_id(128), nullable=False, server_default=""),
    )


def downgrade() -> None:
    op.drop_table("recall_accounts")
