"""Store e-mail addresses in a finer normalised form, and the addresses that users sign in from.

Until now `straße@x.io` was stored as `strasse@x.io`, and `x.io` could be stored in several
spellings. Each existing user gets the finer form of the stored address and keeps the coarser one in
`folded_email`, so that the spelling used at registration still works. If two users would get the
same address, the one already stored under it keeps it, otherwise the oldest gets it. The others
keep their stored spelling, must sign in with exactly that, and are named in the log.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from services.auth.users.emails import normalise_email
from services.common.db.columns import UtcDateTime, ascii_id
from services.common.telemetry.requests import log

revision = "0002"
down_revision = "0001"

_PAGE = 1_000

_users = sa.table(
    "users",
    sa.column("id", sa.String),
    sa.column("email", sa.String),
    sa.column("folded_email", sa.String),
    sa.column("created_at", sa.DateTime),
)


def _exact_text(length: int) -> sa.String:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def upgrade() -> None:
    op.create_table(
        "known_addresses",
        sa.Column("pair_sha256", ascii_id(64), primary_key=True),
        sa.Column(
            "user_id",
            ascii_id(36),
            sa.ForeignKey("users.id", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("last_login_at", UtcDateTime(), nullable=False, index=True),
    )
    op.add_column("users", sa.Column("folded_email", _exact_text(254)))
    op.create_index("ix_users_folded_email", "users", ["folded_email"], unique=True)
    connection = op.get_bind()
    connection.execute(
        _users.update().where(_users.c.folded_email.is_(None)).values(folded_email=_users.c.email)
    )
    _normalise_emails(connection)


def downgrade() -> None:
    op.drop_index("ix_users_folded_email", "users")
    op.drop_column("users", "folded_email")
    op.drop_table("known_addresses")


def _normalise_emails(connection: sa.Connection) -> None:
    """Normalise each user's address unless another user has that form; safe to repeat."""
    for user_id, email in _list_unnormalised(connection):
        normal = normalise_email(email)
        holder = connection.scalar(sa.select(_users.c.id).where(_users.c.email == normal))
        if holder is None:
            connection.execute(_users.update().where(_users.c.id == user_id).values(email=normal))
        else:
            log.warning("email_collision_kept", user=user_id, has_address=holder)


def _list_unnormalised(connection: sa.Connection) -> list[tuple[str, str]]:
    """Return id and address of every user whose address is not normalised, oldest first."""
    users_found: list[tuple[object, str, str]] = []
    last = ""
    while True:
        page = connection.execute(
            sa.select(_users.c.id, _users.c.email, _users.c.created_at)
            .where(_users.c.id > last)
            .order_by(_users.c.id)
            .limit(_PAGE)
        ).all()
        users_found += [
            (created_at, user_id, email)
            for user_id, email, created_at in page
            if normalise_email(email) != email
        ]
        if len(page) < _PAGE:
            return [(user_id, email) for _, user_id, email in sorted(users_found, key=_by_age)]
        last = page[-1][0]


def _by_age(entry: tuple[object, str, str]) -> tuple[str, str]:
    created_at, user_id, _ = entry
    return str(created_at), user_id
