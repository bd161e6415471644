"""API keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0003"
down_revision = "0002"


def _exact_text(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", ascii_id(36), primary_key=True),
        sa.Column("account_id", ascii_id(36), nullable=False, index=True),
        sa.Column(
            "created_by",
            ascii_id(36),
            sa.ForeignKey("users.id", ondelete="SET NULL"),
            index=True,
        ),
        sa.Column("name", _exact_text(100), nullable=False),
        sa.Column("prefix", ascii_id(16), nullable=False),
        sa.Column("key_sha256", ascii_id(64), nullable=False, unique=True),
        sa.Column("mode", ascii_id(8), nullable=False),
        sa.Column("scope", ascii_id(255), nullable=False),
        sa.Column("model_names", sa.Text()),
        sa.Column("addresses", sa.Text()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), index=True),
        sa.Column("last_used_at", UtcDateTime()),
    )


def downgrade() -> None:
    op.drop_table("api_keys")
