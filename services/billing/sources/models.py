"""The tables of journals: what process runs report, and what has arrived of them."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from services.billing.models import Base
from services.common.db.columns import UtcDateTime, ascii_id


class Journal(Base):
    """One process run's journal: how far it reports to be, and what has arrived."""

    __tablename__ = "journals"

    id: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    reported: Mapped[int] = mapped_column(BigInteger)
    """The highest sequence it reported as durable."""
    highest: Mapped[int] = mapped_column(BigInteger)
    """The highest sequence that arrived."""
    received: Mapped[int] = mapped_column(BigInteger)
    """How many distinct sequences arrived."""
    closed: Mapped[bool]
    lost: Mapped[bool]
    """Declared lost after a long silence, and not heard from since."""
    purged: Mapped[bool]
    """Its reservations were deleted after a longer silence; if it comes back, it gets no grants."""
    heard_at: Mapped[datetime] = mapped_column(UtcDateTime)
    complete_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When it was last complete."""


class JournalRange(Base):
    """A range of received sequences, from `first` to `last`; no two of a journal are adjacent."""

    __tablename__ = "journal_ranges"

    journal: Mapped[str] = mapped_column(ascii_id(128), primary_key=True)
    first: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last: Mapped[int] = mapped_column(BigInteger)
