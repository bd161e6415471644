"""Organisations, their members and invitations, and what belongs to them.

No organisation is ever deleted, so columns that older tables gain need no foreign key.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0009"
down_revision = "0008"

_COLUMNS = (
    ("clients", "organisation_id"),
    ("refresh_families", "organisation_id"),
    ("one_time_links", "organisation_id"),
    ("queued_mails", "organisation_id"),
    ("revocations", "account_id"),
)
_INDEXED = ("clients", "one_time_links")


def _exact_text(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def _organisation_id(*, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(
        "organisation_id",
        ascii_id(36),
        sa.ForeignKey("organisations.id", ondelete="CASCADE"),
        nullable=False,
        primary_key=primary_key,
    )


def upgrade() -> None:
    op.create_table(
        "organisations",
        sa.Column("id", ascii_id(36), primary_key=True),
        sa.Column("name", _exact_text(100), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "memberships",
        _organisation_id(primary_key=True),
        sa.Column(
            "user_id",
            ascii_id(36),
            sa.ForeignKey("users.id", ondelete="CASCADE"),
            primary_key=True,
            index=True,
        ),
        sa.Column("role", ascii_id(16), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("tokens_from", UtcDateTime()),
    )
    op.create_table(
        "invitations",
        sa.Column("id", ascii_id(36), primary_key=True),
        _organisation_id(),
        sa.Column("email", _exact_text(254), nullable=False),
        sa.Column("role", ascii_id(16), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
        sa.UniqueConstraint("organisation_id", "email"),
    )
    for table, column in _COLUMNS:
        op.add_column(table, sa.Column(column, ascii_id(36)))
    for table in _INDEXED:
        op.create_index(f"ix_{table}_organisation_id", table, ["organisation_id"])


def downgrade() -> None:
    for table in _INDEXED:
        op.drop_index(f"ix_{table}_organisation_id", table)
    for table, column in _COLUMNS:
        op.drop_column(table, column)
    for table in ("invitations", "memberships", "organisations"):
        op.drop_table(table)
