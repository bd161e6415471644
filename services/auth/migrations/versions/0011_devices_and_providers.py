"""Devices that wait for a person to approve them, and people at other OpenID providers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0011"
down_revision = "0010"


def _exact_text(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def upgrade() -> None:
    client = sa.ForeignKey("clients.client_id", ondelete="CASCADE")
    user = sa.ForeignKey("users.id", ondelete="CASCADE")
    op.create_table(
        "device_codes",
        sa.Column("device_code_sha256", ascii_id(64), primary_key=True),
        sa.Column("user_code_sha256", ascii_id(64), nullable=False, unique=True),
        sa.Column("client_id", ascii_id(64), client, nullable=False, index=True),
        sa.Column("scope", ascii_id(255), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
        sa.Column("next_poll_at", UtcDateTime(), nullable=False),
        sa.Column("interval_s", sa.Integer(), nullable=False),
        sa.Column("denied", sa.Boolean(), nullable=False),
        sa.Column("user_id", ascii_id(36), user, index=True),
        sa.Column("approved_at", UtcDateTime()),
        sa.Column("authenticated_at", UtcDateTime()),
    )
    owner = sa.ForeignKey("users.id", ondelete="CASCADE")
    op.create_table(
        "provider_identities",
        sa.Column("identity_sha256", ascii_id(64), primary_key=True),
        sa.Column("user_id", ascii_id(36), owner, nullable=False, index=True),
        sa.Column("issuer", _exact_text(500), nullable=False),
        sa.Column("subject", _exact_text(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("provider_identities")
    op.drop_table("device_codes")
