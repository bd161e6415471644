"""Public clients, browser sessions, authorization codes and consents."""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0010"
down_revision = "0009"


def _user_id(*, key: bool = False) -> sa.Column[str]:
    user = sa.ForeignKey("users.id", ondelete="CASCADE")
    return sa.Column(
        "user_id", ascii_id(36), user, primary_key=key, nullable=False, index=None if key else True
    )


def _client_id(*, key: bool = False) -> sa.Column[str]:
    client = sa.ForeignKey("clients.client_id", ondelete="CASCADE")
    return sa.Column("client_id", ascii_id(64), client, primary_key=key, nullable=False, index=True)


def upgrade() -> None:
    op.add_column("clients", sa.Column("redirect_addresses", sa.Text()))
    op.add_column("clients", sa.Column("logout_addresses", sa.Text()))
    op.add_column(
        "clients",
        sa.Column("is_first_party", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column("refresh_families", sa.Column("client_id", ascii_id(64)))
    op.create_table(
        "family_tokens",
        sa.Column("token_id", ascii_id(36), primary_key=True),
        sa.Column("family_id", ascii_id(36), nullable=False, index=True),
        sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
    )
    op.create_table(
        "browser_sessions",
        sa.Column("id_sha256", ascii_id(64), primary_key=True),
        _user_id(),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("authenticated_at", UtcDateTime()),
        sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
    )
    op.create_table(
        "authorization_codes",
        sa.Column("code_sha256", ascii_id(64), primary_key=True),
        _client_id(),
        _user_id(),
        sa.Column("account_id", ascii_id(36), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("scope", ascii_id(255), nullable=False),
        sa.Column("challenge", ascii_id(43), nullable=False),
        sa.Column("nonce", ascii_id(255)),
        sa.Column("authenticated_at", UtcDateTime(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
        sa.Column("family_id", ascii_id(36)),
    )
    op.create_table(
        "consents",
        _user_id(key=True),
        _client_id(key=True),
        sa.Column("scope", ascii_id(255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )


def downgrade() -> None:
    for table in ("consents", "authorization_codes", "browser_sessions", "family_tokens"):
        op.drop_table(table)
    op.drop_column("refresh_families", "client_id")
    for column in ("is_first_party", "logout_addresses", "redirect_addresses"):
        op.drop_column("clients", column)
