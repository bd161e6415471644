"""Credits that reduce an account's next invoice."""

from datetime import datetime
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.invoices import repository
from services.billing.invoices.shares import LineKey


async def add_credit(
    session: AsyncSession,
    *,
    account: str,
    currency: str,
    cause: str,
    period: str,
    line: LineKey,
    reason: str,
    amount: int,
    includes_tax: bool,
    now: datetime,
) -> None:
    """Add to what reduces an account's next invoice; the account is locked.

    What one cause gives back of one line is one credit, so that it is rounded once.

    Args:
        period: the month of the usage that is given back.
        line: the line of that month's invoice.
        includes_tax: whether the month has its invoice, so that the amount is rounded and with tax;
            else it is the exact sum of events without tax.
    """
    credit = await repository.lock_credit(
        session,
        account=account,
        cause=cause,
        period=period,
        line=line,
        includes_tax=includes_tax,
    )
    if credit is not None:
        repository.grow_credit(credit, amount=amount)
        return
    row = {
        "id": str(uuid4()),
        "account": account,
        "currency": currency,
        "cause": cause,
        **line._asdict(),
        "reason": reason,
        "amount": amount,
        "includes_tax": includes_tax,
        "period": period,
        "created_at": now,
    }
    await repository.add_credits(session, rows=[row])
