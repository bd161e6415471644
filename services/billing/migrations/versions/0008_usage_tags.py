"""The API key and the tags of usage events.

MySQL and SQLite add these columns without rewriting the table. The version before writes neither.
"""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import ascii_id

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("usage_events", sa.Column("api_key", ascii_id(64)))
    op.add_column("usage_events", sa.Column("tags", ascii_id(700)))


def downgrade() -> None:
    op.drop_column("usage_events", "tags")
    op.drop_column("usage_events", "api_key")
