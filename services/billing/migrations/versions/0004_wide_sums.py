"""Amounts beyond 64 bits, in two columns each.

Every database adds these columns without rewriting a table. The version before keeps reading and
writing the low columns.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_AMOUNTS = (
    ("accounts", "available"),
    ("slices", "granted"),
    ("slices", "settled"),
    ("slices", "returned"),
    ("slices", "spent"),
    ("credits", "amount"),
    ("usage_events", "amount"),
    ("usage_hours", "amount"),
    ("usage_months", "amount"),
)


def upgrade() -> None:
    for table, name in _AMOUNTS:
        op.add_column(
            table,
            sa.Column(f"{name}_high", sa.BigInteger(), nullable=False, server_default="0"),
        )


def downgrade() -> None:
    for table, name in reversed(_AMOUNTS):
        op.drop_column(table, f"{name}_high")
