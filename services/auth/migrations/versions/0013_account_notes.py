"""What administrators note on an account.

An account is a user or an organisation, so that there is no foreign key: deleting a user deletes
the notes. While the version before runs, notes on a user that it deletes stay behind, but nobody
can find them without the user's id.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.common.db.columns import UtcDateTime, ascii_id

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    text = sa.String(2000).with_variant(
        mysql.VARCHAR(2000, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    op.create_table(
        "account_notes",
        sa.Column("id", ascii_id(36), primary_key=True),
        sa.Column("account_id", ascii_id(36), nullable=False),
        sa.Column("author_id", ascii_id(36), nullable=False),
        sa.Column("text", text, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_index(
        "ix_account_notes_account_id_created_at", "account_notes", ["account_id", "created_at"]
    )


def downgrade() -> None:
    op.drop_table("account_notes")
