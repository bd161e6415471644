"""Count how often in a row a limit on failed guesses was reached, so that waits can grow."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # The default is for pods of the previous version, which insert rows without it.
    column = sa.Column("locks", sa.Integer(), nullable=False, server_default="0")
    op.add_column("login_failures", column)


def downgrade() -> None:
    op.drop_column("login_failures", "locks")
