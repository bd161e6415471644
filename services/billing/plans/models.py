"""The table of trial credit."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from services.billing import amounts
from services.billing.models import Base, high_part, low_part
from services.common.db.columns import UtcDateTime, ascii_id


class Trial(Base):
    """The trial credit of an account, which has one at most, ever; amounts in 10⁻⁹ of the unit.

    A transaction that changes it locks the account, and then this row.
    """

    __tablename__ = "trials"

    account: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    plan_id: Mapped[str] = mapped_column(ascii_id(36))
    currency: Mapped[str] = mapped_column(ascii_id(3))
    amount_high: Mapped[int] = high_part()
    amount_low: Mapped[int] = low_part("amount")
    days: Mapped[int]
    starts_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When the account is on the plan, and gets the credit."""
    granted: Mapped[bool]
    expired_high: Mapped[int] = high_part()
    expired_low: Mapped[int] = low_part("expired")
    """What was taken back of it."""
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    """When it is to be granted or taken back next; null once it is used up or expired."""

    @property
    def amount(self) -> int:
        return amounts.join(self.amount_high, self.amount_low)

    @property
    def expired(self) -> int:
        return amounts.join(self.expired_high, self.expired_low)
