"""Who invites to an organisation, and from where an e-mail was requested."""

import sqlalchemy as sa
from alembic import op

from services.common.db.columns import ascii_id

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("invitations", sa.Column("invited_by", ascii_id(36)))
    op.create_index("ix_invitations_invited_by", "invitations", ["invited_by"])
    op.add_column("queued_mails", sa.Column("address", ascii_id(64)))


def downgrade() -> None:
    op.drop_column("queued_mails", "address")
    op.drop_index("ix_invitations_invited_by", "invitations")
    op.drop_column("invitations", "invited_by")
