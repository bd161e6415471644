"""An index with the order in which an account's events are read, in all columns.

MySQL, unlike MariaDB, does not use the primary key's columns that follow those of an index anyway,
and sorted the rest of a month for each page. The index stays as large as it was.
"""

from alembic import op

revision = "0019"
down_revision = "0018"

_NAME = "ix_usage_events_account_time"


def upgrade() -> None:
    _replace("account", "time", "id", "source")


def downgrade() -> None:
    _replace("account", "time")


def _replace(*columns: str) -> None:
    if op.get_bind().dialect.name == "mysql":
        # In one statement, because queries of the version before name the index.
        op.execute(
            f"ALTER TABLE usage_events DROP INDEX {_NAME}, ADD INDEX {_NAME} ({', '.join(columns)})"
        )
    else:
        op.drop_index(_NAME, "usage_events")
        op.create_index(_NAME, "usage_events", columns)
