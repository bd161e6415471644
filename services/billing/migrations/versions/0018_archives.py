"""Months whose usage events are archived in files, and those files."""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0018"
down_revision = "0017"


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "archives",
        sa.Column("period", ascii_id(7), primary_key=True),
        _number("requests"),
        _number("rows"),
        sa.Column("amount_high", sa.BigInteger(), nullable=False, server_default="0"),
        _number("amount"),
        _number("bytes"),
        sa.Column("archived_at", UtcDateTime(), nullable=False),
        sa.Column("dropped_at", UtcDateTime(), nullable=True),
    )
    op.create_table(
        "archive_parts",
        sa.Column("period", ascii_id(7), primary_key=True),
        sa.Column("part", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", ascii_id(64), nullable=False),
        _number("requests"),
        _number("bytes"),
        sa.Column("sha256", ascii_id(64), nullable=False),
        sa.Column("first_time", UtcDateTime(), nullable=False),
        sa.Column("last_time", UtcDateTime(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("archive_parts")
    op.drop_table("archives")
