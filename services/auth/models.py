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
    """A person who logs in; `email` is stored in its normal form (`accounts.emails`)."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    email: Mapped[str] = mapped_column(exact_text(254), unique=True)
    folded_email: Mapped[str | None] = mapped_column(exact_text(254), unique=True, index=True)
    """The coarser form that older versions stored, so that a user who then registered as
    `straße@…` still logs in with that spelling. Null for users who came later."""
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

    def has_expired(self, now: datetime) -> bool:
        """Whether less than a second is left: a token lives for whole seconds."""
        return self.expires_at is not None and int(self.expires_at.timestamp()) <= now.timestamp()


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
    """Failed log-ins of the current window, under one key of `tokens.attempts.LoginKeys`."""

    __tablename__ = "login_failures"

    key_sha256: Mapped[str] = mapped_column("email_sha256", ascii_id(64), primary_key=True)
    """The column has its first name, by which pods of the previous version read it."""
    failures: Mapped[int]
    window_ends_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class KnownAddress(Base):
    """An address from which a user has logged in, as the digest that their failures count under."""

    __tablename__ = "known_addresses"

    pair_sha256: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    last_login_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
