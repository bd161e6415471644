"""The tables of the OpenID provider."""

from datetime import datetime

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from services.auth.models import Base
from services.common.db.columns import UtcDateTime, ascii_id


class AuthorizationCode(Base):
    """A code that a client exchanges for tokens once. Kept for a while, to recognize a replay."""

    __tablename__ = "authorization_codes"

    code_sha256: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    client_id: Mapped[str] = mapped_column(
        ascii_id(64), ForeignKey("clients.client_id", ondelete="CASCADE"), index=True
    )
    user_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    account_id: Mapped[str] = mapped_column(ascii_id(36))
    redirect_uri: Mapped[str] = mapped_column(Text)
    scope: Mapped[str] = mapped_column(ascii_id(255))
    challenge: Mapped[str] = mapped_column(ascii_id(43))
    """The S256 challenge of RFC 7636."""
    nonce: Mapped[str | None] = mapped_column(ascii_id(255))
    authenticated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    family_id: Mapped[str | None] = mapped_column(ascii_id(36))
    """The refresh family that it was exchanged for; null while it is unused."""


class Consent(Base):
    """What a person has allowed a client."""

    __tablename__ = "consents"

    user_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    client_id: Mapped[str] = mapped_column(
        ascii_id(64),
        ForeignKey("clients.client_id", ondelete="CASCADE"),
        primary_key=True,
        index=True,
    )
    scope: Mapped[str] = mapped_column(ascii_id(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DeviceCode(Base):
    """A device that waits for a person to approve it in a browser (RFC 8628)."""

    __tablename__ = "device_codes"

    device_code_sha256: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    user_code_sha256: Mapped[str] = mapped_column(ascii_id(64), unique=True)
    client_id: Mapped[str] = mapped_column(
        ascii_id(64), ForeignKey("clients.client_id", ondelete="CASCADE"), index=True
    )
    scope: Mapped[str] = mapped_column(ascii_id(255))
    """What the client asks for and, once approved, what it gets."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    next_poll_at: Mapped[datetime] = mapped_column(UtcDateTime)
    interval_s: Mapped[int]
    denied: Mapped[bool]
    user_id: Mapped[str | None] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    """Who approved it; null while nobody has."""
    approved_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    authenticated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
