"""Profiles, second factors, one-time links and queued mail."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0006"
down_revision = "0005"


def _exact_text(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def _user_id(*, nullable: bool) -> sa.Column[str]:
    return sa.Column(
        "user_id",
        ascii_id(36),
        sa.ForeignKey("users.id", ondelete="CASCADE"),
        nullable=nullable,
        index=True,
    )


def upgrade() -> None:
    op.add_column("users", sa.Column("name", _exact_text(100)))
    op.add_column("users", sa.Column("email_verified_at", UtcDateTime()))
    op.add_column("users", sa.Column("totp_secret", ascii_id(64)))
    op.add_column("users", sa.Column("totp_confirmed_at", UtcDateTime()))
    op.add_column("users", sa.Column("totp_last_step", sa.BigInteger()))
    op.create_table(
        "recovery_codes",
        sa.Column("code_sha256", ascii_id(64), primary_key=True),
        _user_id(nullable=False),
    )
    op.create_table(
        "one_time_links",
        sa.Column("token_sha256", ascii_id(64), primary_key=True),
        _user_id(nullable=True),
        sa.Column("purpose", ascii_id(32), nullable=False),
        sa.Column("email", _exact_text(254), nullable=False),
        sa.Column("password_hash", ascii_id(255)),
        sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
    )
    op.create_table(
        "queued_mails",
        sa.Column("id", ascii_id(36), primary_key=True),
        _user_id(nullable=True),
        sa.Column("kind", ascii_id(32), nullable=False),
        sa.Column("email", _exact_text(254), nullable=False),
        sa.Column("password_hash", ascii_id(255)),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=False, index=True),
    )
    op.create_index("ix_audit_entries_actor", "audit_entries", ["actor"])
    op.create_index("ix_audit_entries_target", "audit_entries", ["target"])


def downgrade() -> None:
    op.drop_index("ix_audit_entries_target", "audit_entries")
    op.drop_index("ix_audit_entries_actor", "audit_entries")
    for table in ("queued_mails", "one_time_links", "recovery_codes"):
        op.drop_table(table)
    for column in (
        "totp_last_step",
        "totp_confirmed_at",
        "totp_secret",
        "email_verified_at",
        "name",
    ):
        op.drop_column("users", column)
