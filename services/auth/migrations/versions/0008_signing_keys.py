"""The keys that sign tokens, and the key that encrypts them."""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "encryption_keys",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("wrapped", ascii_id(255), nullable=False),
    )
    op.create_table(
        "signing_keys",
        sa.Column("id", ascii_id(64), primary_key=True),
        sa.Column("private_pem", sa.Text()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("signs_from", UtcDateTime(), nullable=False),
        sa.Column("retires_at", UtcDateTime()),
    )


def downgrade() -> None:
    for table in ("signing_keys", "encryption_keys"):
        op.drop_table(table)
