"""The tables of archives: the months that are archived, and their files."""

from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, select
from sqlalchemy.orm import Mapped, mapped_column

from services.billing import amounts
from services.billing.models import Base, UsageEvent, high_part, low_part
from services.common.db.columns import UtcDateTime, ascii_id


class Archive(Base):
    """A month whose usage events are all in files; from then on, those are what counts.

    The row is inserted together with those of its files, before any event is deleted.
    """

    __tablename__ = "archives"

    period: Mapped[str] = mapped_column(ascii_id(7), primary_key=True)
    """The month that the events are billed in."""
    requests: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
    bytes: Mapped[int] = mapped_column(BigInteger)
    archived_at: Mapped[datetime] = mapped_column(UtcDateTime)
    dropped_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the last of its events was deleted from the database."""

    @property
    def amount(self) -> int:
        return amounts.join(self.amount_high, self.amount_low)


def is_not_archived() -> ColumnElement[bool]:
    """Return whether an event's month is not archived; if it is, the event in a file counts."""
    return UsageEvent.period.not_in(select(Archive.period))


class ArchivePart(Base):
    """A file of an archived month; it never changes."""

    __tablename__ = "archive_parts"

    period: Mapped[str] = mapped_column(ascii_id(7), primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Counted from 1."""
    name: Mapped[str] = mapped_column(ascii_id(64))
    """In the month's folder of `BILLING_ARCHIVE`."""
    requests: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(ascii_id(64))
    first_time: Mapped[datetime] = mapped_column(UtcDateTime)
    last_time: Mapped[datetime] = mapped_column(UtcDateTime)
    """Of the last event in it."""
