"""The audit log: entries that are still to be chained, and the chain."""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import Serial, UtcDateTime, ascii_id

revision = "0005"
down_revision = "0004"


def _columns() -> list[sa.Column[object]]:
    return [
        sa.Column("time", UtcDateTime(), nullable=False),
        sa.Column("actor", ascii_id(64)),
        sa.Column("action", ascii_id(64), nullable=False),
        sa.Column("target", ascii_id(128)),
        sa.Column("address", ascii_id(64)),
    ]


def upgrade() -> None:
    op.create_table(
        "pending_audit_entries",
        sa.Column("id", Serial, primary_key=True, autoincrement=True),
        *_columns(),
    )
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        *_columns(),
        sa.Column("hash", ascii_id(64), nullable=False),
    )


def downgrade() -> None:
    for table in ("audit_entries", "pending_audit_entries"):
        op.drop_table(table)
