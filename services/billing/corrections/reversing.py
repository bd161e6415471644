"""Taking usage events back: to the balance if they were prepaid, else by a credit or credit note.

Events of a month without an invoice reduce its invoice. Those of an invoiced month give back what
is left of it, with the tax that it charged.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.corrections import credit_notes, repository
from services.billing.corrections.left import Given, InvoiceLeft
from services.billing.corrections.selecting import Charged
from services.billing.invoices.credits import add_credit
from services.billing.invoices.issuing import invoice_id
from services.billing.invoices.numbers import find_numbers, next_number
from services.billing.invoices.reversals import ReversedSum, add_reversed
from services.billing.invoices.schemas import InvoiceRead
from services.billing.invoices.service import get_invoice
from services.billing.invoices.shares import LineKey
from services.billing.ledger.accounts import store_money
from services.billing.ledger.entries import Posting, make_entry
from services.billing.ledger.posting import post


class Cause(NamedTuple):
    """Why events of an account are taken back."""

    kind: Literal["recall", "adjustment"]
    id: str
    """Of the recall or adjustment."""
    account: str
    reason: str
    """The reason on the next invoice."""
    now: datetime


class NoteSeries(NamedTuple):
    """How credit notes are issued for events of invoiced months."""

    series: str
    by: str
    reason: str


async def reverse(
    session: AsyncSession,
    events: Sequence[Charged],
    *,
    account: str,
    kind: Literal["recall", "adjustment"],
    cause: str,
    reason: str,
    now: datetime,
    notes: NoteSeries | None = None,
) -> int:
    """Take events of a locked account back; return what they cost, in 10⁻⁹ of the unit.

    Args:
        events: events that were not taken back before, all in the account's currency.
        cause: the id of the recall or adjustment.
        reason: what the next invoice says.
        notes: where to number credit notes for what an invoice still owes; without it, all of it
            reduces the next invoice.
    """
    if not events:
        return 0
    why = Cause(kind, cause, account, reason, now)
    currency = events[0].currency
    total = await _store(session, events, why=why, currency=currency)
    months: defaultdict[str, list[Charged]] = defaultdict(list)
    for event in events:
        months[event.period].append(event)
    invoiced = await find_numbers(session, account=account, periods=months.keys())
    to_balance = 0
    for period, its_events in sorted(months.items()):
        lines: Counter[LineKey] = Counter()
        prepaid: Counter[LineKey] = Counter()
        for event in its_events:
            key = LineKey(event.model, event.price_id)
            lines[key] += event.amount
            prepaid[key] += event.amount if event.is_prepaid else 0
        returned: Mapping[LineKey, int] = prepaid
        if period in invoiced:
            returned = await _give_back(
                session, lines, prepaid, period=period, why=why, currency=currency, notes=notes
            )
        else:
            await _add_credits(
                session,
                lines - prepaid,
                period=period,
                why=why,
                currency=currency,
                includes_tax=False,
            )
        sums = {key: ReversedSum(amount, returned[key]) for key, amount in lines.items()}
        await add_reversed(session, account=account, period=period, sums=sums)
        to_balance += sum(returned.values())
    if to_balance:
        await store_money(session, reservations=(), changes={account: to_balance}, now=now)
    return total


async def _store(
    session: AsyncSession, events: Sequence[Charged], *, why: Cause, currency: str
) -> int:
    """Store and post that events are taken back; return what they cost."""
    prepaid = sum(event.amount for event in events if event.is_prepaid)
    postpaid = sum(event.amount for event in events if not event.is_prepaid)
    postings = [
        Posting("adjustments", prepaid + postpaid, account=why.account),
        Posting("prepaid", -prepaid, account=why.account),
        Posting("receivable", -postpaid, account=why.account),
    ]
    entry_id = await post(
        session,
        make_entry(why.kind, currency=currency, reference=why.id, postings=postings, now=why.now),
    )
    await repository.add_reversals(
        session,
        rows=[
            {
                "time": event.time,
                "id": event.id,
                "source": event.source,
                "account": why.account,
                "cause": why.id,
                "amount": event.amount,
                "entry_id": entry_id,
            }
            for event in events
        ],
    )
    return prepaid + postpaid


async def _add_credits(
    session: AsyncSession,
    amounts: Mapping[LineKey, int],
    *,
    period: str,
    why: Cause,
    currency: str,
    includes_tax: bool,
) -> None:
    """Reduce the next invoice by what is given back of lines of a month."""
    for line, amount in sorted(amounts.items()):
        if amount:
            await add_credit(
                session,
                account=why.account,
                currency=currency,
                cause=why.id,
                period=period,
                line=line,
                reason=why.reason,
                amount=amount,
                includes_tax=includes_tax,
                now=why.now,
            )


async def _give_back(
    session: AsyncSession,
    lines: Mapping[LineKey, int],
    prepaid: Mapping[LineKey, int],
    *,
    period: str,
    why: Cause,
    currency: str,
    notes: NoteSeries | None,
) -> Counter[LineKey]:
    """Give back what is left of events of an invoiced month; return what returns to the balance.

    Lines that the invoice lacks were never charged, except to the balance.
    """
    invoice = await get_invoice(
        session, account=why.account, invoice_id=invoice_id(why.account, period)
    )
    left = await credit_notes.find_left(session, invoice)
    gifts = left.give(lines)
    returned = Counter({each.key: each.to_balance for each in gifts})
    returned.update({key: amount for key, amount in prepaid.items() if key not in returned})
    noted: Mapping[LineKey, int] = {}
    if notes is not None:
        noted = await _note(session, invoice, left, gifts, notes=notes, now=why.now)
    credits = {each.key: each.credit - noted.get(each.key, 0) for each in gifts}
    await _add_credits(
        session, credits, period=period, why=why, currency=currency, includes_tax=True
    )
    entry = make_entry(
        "correction",
        currency=currency,
        reference=why.id,
        postings=_corrections(gifts, left=left, noted=sum(noted.values()), account=why.account),
        now=why.now,
    )
    await post(session, entry)
    return returned


def _corrections(
    gifts: Sequence[Given], *, left: InvoiceLeft, noted: int, account: str
) -> list[Posting]:
    """Return what differs from the events' amounts, which are posted: tax, rounding, and notes.

    Args:
        noted: what a credit note of its own gives back, and posts.
    """
    prepaid = sum(each.amount for each in gifts if each.is_prepaid)
    prepaid -= sum(each.to_balance for each in gifts)
    postpaid = sum(each.amount for each in gifts if not each.is_prepaid)
    credited = sum(each.credit for each in gifts) - noted
    tax_in_note = left.tax_in(noted)
    by_notes = noted - tax_in_note + sum(each.missing for each in gifts if not each.is_whole)
    return [
        Posting("prepaid", prepaid, account=account),
        Posting("receivable", postpaid - credited, account=account),
        Posting("tax", sum(each.tax for each in gifts) - tax_in_note),
        Posting("adjustments", -by_notes, account=account),
        Posting("rounding", -sum(each.missing for each in gifts if each.is_whole)),
    ]


async def _note(
    session: AsyncSession,
    invoice: InvoiceRead,
    left: InvoiceLeft,
    gifts: Sequence[Given],
    *,
    notes: NoteSeries,
    now: datetime,
) -> dict[LineKey, int]:
    """Issue a credit note for what the invoice still owes; return what it gives back, by line."""
    owed = left.owed
    noted: dict[LineKey, int] = {}
    for each in gifts:
        amount = min(each.credit, owed)
        if amount:
            noted[each.key] = amount
            owed -= amount
    if noted:
        numbered = enumerate(left.lines)
        await credit_notes.issue(
            session,
            invoice,
            left=left,
            amount=sum(noted.values()),
            lines={number: noted[line.key] for number, line in numbered if line.key in noted},
            is_of_events=True,
            reason=notes.reason,
            series=notes.series,
            sequence=await next_number(session, series=notes.series),
            by=notes.by,
            now=now,
        )
    return noted
