"""Credits that reduce an account's next invoice."""

from datetime import datetime
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.amounts import split
from services.billing.invoices import repository


async def add_credit(
    session: AsyncSession,
    *,
    account: str,
    currency: str,
    cause: str,
    model: str,
    price_id: str,
    reason: str,
    amount: int,
    now: datetime,
) -> None:
    """Add to what reduces an account's next invoice; the account is locked.

    What one cause gives back under one price is one credit, so that it is rounded once.
    """
    credit = await repository.lock_credit(
        session, account=account, cause=cause, model=model, price_id=price_id
    )
    if credit is not None:
        credit.amount_high, credit.amount_low = split(credit.amount + amount)
        return
    row = {
        "id": str(uuid4()),
        "account": account,
        "currency": currency,
        "cause": cause,
        "model": model,
        "price_id": price_id,
        "reason": reason,
        "amount": amount,
        "includes_tax": False,
        "created_at": now,
    }
    await repository.add_credits(session, rows=[row])
