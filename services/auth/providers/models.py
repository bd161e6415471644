"""The table of people at other OpenID providers."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from services.auth.models import Base, exact_text
from services.common.db.columns import UtcDateTime, ascii_id


class ProviderIdentity(Base):
    """A person at another OpenID provider, who signs in as a user."""

    __tablename__ = "provider_identities"

    identity_sha256: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    """Digest of the issuer and the person's `sub` there, which may be of any length and case."""
    user_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    issuer: Mapped[str] = mapped_column(exact_text(500))
    subject: Mapped[str] = mapped_column(exact_text(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
