"""Taking usage events back: to the balance if they were prepaid, else on the next invoice."""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.corrections import repository
from services.billing.corrections.repository import Charged
from services.billing.invoices.credits import add_credit
from services.billing.ledger.accounts import store_money
from services.billing.ledger.entries import Posting, make_entry
from services.billing.ledger.posting import post


async def reverse(
    session: AsyncSession,
    events: Sequence[Charged],
    *,
    account: str,
    kind: Literal["recall", "adjustment"],
    cause: str,
    reason: str,
    now: datetime,
    noted: Collection[str] = (),
) -> int:
    """Take events of a locked account back; return how much, in 10⁻⁹ of the unit.

    Args:
        events: events that were not taken back before, all in the account's currency.
        cause: the id of the recall or adjustment.
        reason: what the next invoice says.
        noted: months whose postpaid events the caller gives back by a credit note.
    """
    if not events:
        return 0
    currency = events[0].currency
    prepaid = sum(event.amount for event in events if event.is_prepaid)
    postpaid = sum(event.amount for event in events if not event.is_prepaid)
    owed: Counter[tuple[str, str]] = Counter()
    for event in events:
        if not event.is_prepaid and event.period not in noted:
            owed[event.model, event.price_id] += event.amount
    total = prepaid + postpaid
    postings = [
        Posting("adjustments", total, account=account),
        Posting("prepaid", -prepaid, account=account),
        Posting("receivable", -postpaid, account=account),
    ]
    entry_id = await post(
        session,
        make_entry(kind, currency=currency, reference=cause, postings=postings, now=now),
    )
    await repository.add_reversals(
        session,
        rows=[
            {
                "time": event.time,
                "id": event.id,
                "source": event.source,
                "account": account,
                "cause": cause,
                "amount": event.amount,
                "entry_id": entry_id,
            }
            for event in events
        ],
    )
    if prepaid:
        await store_money(session, reservations=(), changes={account: prepaid}, now=now)
    for (model, price_id), amount in sorted(owed.items()):
        if amount:
            await add_credit(
                session,
                account=account,
                currency=currency,
                cause=cause,
                model=model,
                price_id=price_id,
                reason=reason,
                amount=amount,
                now=now,
            )
    return total
