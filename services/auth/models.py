"""The tables of the auth service, all on one page."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.common.db import UtcDateTime, ascii_id, new_metadata


class Base(DeclarativeBase):
    metadata = new_metadata()


def exact_text(length: int) -> String:
    """Unicode text, compared byte for byte on every database."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


class User(Base):
    """A person with an account; `email` is kept in its normal form (`accounts.emails`)."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    email: Mapped[str] = mapped_column(exact_text(254), unique=True)
    password_hash: Mapped[str] = mapped_column(ascii_id(255))
    is_admin: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Client(Base):
    """A machine's credentials: a user's, or a service's own when there is no owner."""

    __tablename__ = "clients"

    client_id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    owner_id: Mapped[str | None] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(exact_text(100))
    secret_sha256: Mapped[str] = mapped_column(ascii_id(64))
    scope: Mapped[str] = mapped_column(ascii_id(255))
    """The most its tokens may be granted, space-separated."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class RefreshFamily(Base):
    """One log-in and the chain of refresh tokens that came of it.

    A refresh token is `<family id>.<secret>` and only the newest secret holds, so every earlier
    token of the chain is recognised without being kept. A revoked family is deleted.
    """

    __tablename__ = "refresh_families"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    secret_sha256: Mapped[str] = mapped_column(ascii_id(64))
    scope: Mapped[str] = mapped_column(ascii_id(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class LoginFailures(Base):
    """Failed log-ins for one e-mail, known or not, within the current window."""

    __tablename__ = "login_failures"

    email_sha256: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    failures: Mapped[int]
    window_ends_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
