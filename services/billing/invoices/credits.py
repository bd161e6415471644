"""Credits that reduce an account's next invoice."""

from datetime import datetime
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.invoices import repository
from services.billing.invoices.issuing import rest_id
from services.billing.invoices.making import RETURNED
from services.billing.invoices.schemas import InvoiceRead
from services.billing.invoices.shares import LineKey
from services.common.contracts import parse_amount


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


async def find_credited(session: AsyncSession, invoice: InvoiceRead) -> int:
    """Return what credits have given back for events of an invoice, with tax.

    Credits of events that were taken back before it was issued reduced the invoice itself, and what
    it left of them is a credit of its own. Those of later reversals are rounded and with tax.
    """
    rows = await repository.list_credits(
        session, account=invoice.account, period=invoice.period, cause=invoice.id
    )
    rests = {row.id: row.amount for row in rows if row.cause == invoice.id}
    shown = {each.id: parse_amount(each.amount) for each in invoice.credits}
    of_events = [row for row in rows if row.period == invoice.period]
    reduced = [row.id for row in of_events if row.invoice_id == invoice.id and not row.includes_tax]
    return sum(row.amount for row in of_events if row.includes_tax) + sum(
        shown.get(each, 0) + rests.get(rest_id(each, invoice.id), 0)
        for each in (RETURNED, *reduced)
    )
