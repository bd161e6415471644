"""The table of browser sessions."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from services.auth.models import Base
from services.common.db.columns import UtcDateTime, ascii_id


class BrowserSession(Base):
    """A person who is signed in with a browser; only the digest of its cookie is stored."""

    __tablename__ = "browser_sessions"

    id_sha256: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    authenticated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Null after the password, while the code of the second factor is missing."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
