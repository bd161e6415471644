"""Verify corrections: what was taken back is what had been charged, and it is in the ledger."""

from typing import Any

from sqlalchemy import and_, func, literal, or_, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.amounts import differ, differing, exact, labelled
from services.billing.corrections.credit_notes import digest
from services.billing.corrections.models import CreditNote, EventReversal
from services.billing.invoices.models import NumberSeries
from services.billing.models import LedgerEntry, LedgerPosting, UsageEvent
from services.common.contracts import format_amount

_KINDS = ("recall", "adjustment")


async def verify_corrections(connection: AsyncConnection) -> list[str]:
    """Return a sentence for each difference."""
    return [
        *await _events(connection),
        *await _entries(connection),
        *await _notes(connection),
    ]


async def _events(connection: AsyncConnection) -> list[str]:
    """Check that each reversal is the amount of an event of its account."""
    reversal, event = EventReversal, UsageEvent
    same = and_(reversal.time == event.time, reversal.id == event.id)
    wrong = or_(
        event.id.is_(None),
        event.account != reversal.account,
        differ((event.amount_high, event.amount_low), (reversal.amount_high, reversal.amount_low)),
    )
    found = await connection.execute(
        select(reversal.id)
        .outerjoin(event, and_(same, reversal.source == event.source))
        .where(wrong)
        .order_by(reversal.id)
    )
    return [f"corrections: event {each}: differs from what was taken back" for (each,) in found]


async def _entries(connection: AsyncConnection) -> list[str]:
    """Check that ledger entries are the sums of what was taken back, by cause and account."""
    amount = exact(EventReversal.amount_low, high=EventReversal.amount_high)
    reversals: Any = select(
        func.coalesce(EventReversal.entry_id, 0).label("entry"),
        EventReversal.account.label("account"),
        EventReversal.cause.label("cause"),
        *amount.named("amount"),
    )
    posted = exact(LedgerPosting.amount_low, high=LedgerPosting.amount_high)
    postings: Any = (
        select(
            LedgerEntry.id.label("entry"),
            LedgerPosting.account.label("account"),
            LedgerEntry.reference.label("cause"),
            *posted.minus().named("amount"),
        )
        .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
        .where(LedgerEntry.kind.in_(_KINDS), LedgerPosting.ledger == literal("adjustments"))
    )
    both = union_all(reversals, postings).subquery()
    keys = (both.c.entry, both.c.account, both.c.cause)
    total = labelled(both.c, "amount").total().named("amount")
    sums = select(*keys, *total).group_by(*keys).subquery()
    order = (text("entry"), text("account"), text("cause"))
    found = await connection.execute(differing(sums, "amount").order_by(*order))
    return [
        f"corrections: entry {row.entry}, account {row.account}: the ledger and what was taken "
        f"back differ by {format_amount(labelled(row, 'amount').value())}"
        for row in found
    ]


async def _notes(connection: AsyncConnection) -> list[str]:
    """Check that credit notes are unchanged and numbered without gaps."""
    differences: list[str] = []
    last: dict[str, int] = {}
    columns = CreditNote.__table__.columns
    found = await connection.stream(
        select(*columns).order_by(CreditNote.series, CreditNote.sequence)
    )
    async for row in found.mappings():
        note = {column.key: row[column.key] for column in columns}
        if digest(note) != note["digest"]:
            differences.append(f"corrections: {note['number']}: has been changed")
        if note["sequence"] != last.get(note["series"], 0) + 1:
            differences.append(f"corrections: {note['number']}: the number before it is missing")
        last[note["series"]] = note["sequence"]
    stored = await connection.execute(
        select(NumberSeries.id, NumberSeries.last).where(NumberSeries.id.like("credit_note:%"))
    )
    differences += [
        f"corrections: series {series}: the last number is {last.get(series, 0)}, not {number}"
        for series, number in stored
        if last.get(series, 0) != number
    ]
    return differences
