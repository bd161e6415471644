"""Revocations, numbered for the services that follow them."""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "revocations",
        sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("kind", ascii_id(16), nullable=False),
        sa.Column("target_id", ascii_id(64), nullable=False, index=True),
        sa.Column("issued_before", UtcDateTime(), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False, index=True),
    )
    op.create_table(
        "revocation_counter",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
    )
    op.add_column("users", sa.Column("tokens_from", UtcDateTime()))
    op.add_column("clients", sa.Column("tokens_from", UtcDateTime()))


def downgrade() -> None:
    op.drop_column("clients", "tokens_from")
    op.drop_column("users", "tokens_from")
    op.drop_table("revocation_counter")
    op.drop_table("revocations")
