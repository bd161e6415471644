"""Users, their clients, refresh families and failed sign-ins."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0001"
down_revision = None


def _exact_text(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def _owned_by_user(column: str, *, nullable: bool) -> sa.Column[str]:
    return sa.Column(
        column,
        ascii_id(36),
        sa.ForeignKey("users.id", ondelete="CASCADE"),
        nullable=nullable,
        index=True,
    )


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", ascii_id(36), primary_key=True),
        sa.Column("email", _exact_text(254), nullable=False, unique=True),
        sa.Column("password_hash", ascii_id(255), nullable=False),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("disabled_at", UtcDateTime()),
    )
    op.create_table(
        "clients",
        sa.Column("client_id", ascii_id(64), primary_key=True),
        _owned_by_user("owner_id", nullable=True),
        sa.Column("name", _exact_text(100), nullable=False),
        sa.Column("secret_sha256", ascii_id(64), nullable=False),
        sa.Column("scope", ascii_id(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime()),
    )
    op.create_table(
        "refresh_families",
        sa.Column("id", ascii_id(36), primary_key=True),
        _owned_by_user("user_id", nullable=False),
        sa.Column("secret_sha256", ascii_id(64), nullable=False),
        sa.Column("scope", ascii_id(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
    )
    op.create_table(
        "login_failures",
        sa.Column("email_sha256", ascii_id(64), primary_key=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("window_ends_at", UtcDateTime(), nullable=False, index=True),
    )


def downgrade() -> None:
    for table in ("login_failures", "refresh_families", "clients", "users"):
        op.drop_table(table)
