"""Verify corrections: what was taken back is what had been charged, and it is in the ledger."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Select, and_, func, literal, or_, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.amounts import differ, differing, exact, join, labelled
from services.billing.archives.models import Archive, is_not_archived
from services.billing.archives.verifying import (
    ArchivedEvents,
    check_reversals,
    check_reversed_lines,
)
from services.billing.corrections.models import CreditNote, EventReversal
from services.billing.corrections.summing import missing_sums
from services.billing.currencies import minor_unit
from services.billing.invoices.digests import row_digest
from services.billing.invoices.models import Invoice, NumberSeries, ReversedLine
from services.billing.invoices.parties import AppliedTax
from services.billing.invoices.shares import tax_within
from services.billing.models import LedgerEntry, LedgerPosting, UsageEvent
from services.common.contracts import format_amount

_KINDS = ("recall", "adjustment")


async def verify_corrections(connection: AsyncConnection, archived: ArchivedEvents) -> list[str]:
    """Return a sentence for each difference."""
    return [
        *await _events(connection, archived),
        *await _entries(connection),
        *await _sums(connection, archived),
        *await _notes(connection),
        *await _note_entries(connection),
    ]


async def _events(connection: AsyncConnection, archived: ArchivedEvents) -> list[str]:
    """Check that each reversal is the amount of an event of its account."""
    reversal, event = EventReversal, UsageEvent
    same = and_(
        reversal.time == event.time,
        reversal.id == event.id,
        reversal.source == event.source,
        is_not_archived(),
    )
    wrong = or_(
        event.account != reversal.account,
        differ((event.amount_high, event.amount_low), (reversal.amount_high, reversal.amount_low)),
    )
    changed = await connection.execute(select(reversal.id).join(event, same).where(wrong))
    without: Any = (
        select(
            reversal.id,
            reversal.source,
            reversal.account,
            reversal.amount_high,
            reversal.amount_low,
        )
        .outerjoin(event, same)
        .where(event.id.is_(None))
    )
    missing = await check_reversals(connection, archived, without)
    ids = [*changed.scalars(), *(event_id for (event_id, _, _), _ in missing)]
    return [f"corrections: event {each}: differs from what was taken back" for each in sorted(ids)]


async def _entries(connection: AsyncConnection) -> list[str]:
    """Check that ledger entries are the sums of what was taken back, by cause and account."""
    found = await connection.execute(_entry_differences())
    return [
        f"corrections: entry {row.entry}, account {row.account}: the ledger and what was taken "
        f"back differ by {format_amount(labelled(row, 'amount').value())}"
        for row in found
    ]


@cache
def _entry_differences() -> Select[Any]:
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
    return differing(sums, "amount").order_by(*order)


async def _sums(connection: AsyncConnection, archived: ArchivedEvents) -> list[str]:
    """Check the sums of what was taken back, by line, and what of it returned to the balance."""
    by_line = await connection.execute(_missing_sums())
    of_archives = await check_reversed_lines(connection, archived)
    by_account = await connection.execute(_returned_differences())
    return [
        *(
            f"corrections: account {row.account}, {row.period}, model {row.model}: the sum of what "
            f"was taken back lacks {format_amount(labelled(row, 'more').value())}"
            for row in by_line
        ),
        *(
            f"corrections: account {account}, {period}, model {model}: the sum of what was taken "
            f"back lacks {format_amount(-more)}"
            for (account, period, model, _), (more,) in of_archives
        ),
        *(
            f"corrections: account {row.account}: the ledger and what returned to the balance "
            f"differ by {format_amount(labelled(row, 'amount').value())}"
            for row in by_account
        ),
    ]


@cache
def _missing_sums() -> Select[Any]:
    return missing_sums(archived=select(Archive.period))


@cache
def _returned_differences() -> Select[Any]:
    returned = exact(ReversedLine.returned_low, high=ReversedLine.returned_high)
    posted = exact(LedgerPosting.amount_low, high=LedgerPosting.amount_high)
    both = union_all(
        select(ReversedLine.account.label("account"), *returned.named("amount")),
        select(LedgerPosting.account.label("account"), *posted.named("amount"))
        .join(LedgerEntry, LedgerEntry.id == LedgerPosting.entry_id)
        .where(
            LedgerEntry.kind.in_((*_KINDS, "correction")),
            LedgerPosting.ledger == literal("prepaid"),
        ),
    ).subquery()
    total = labelled(both.c, "amount").total().named("amount")
    sums = select(both.c.account, *total).group_by(both.c.account).subquery()
    return differing(sums, "amount").order_by(text("account"))


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
        if row_digest(note) != note["digest"]:
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


async def _note_entries(connection: AsyncConnection) -> list[str]:
    """Check that each credit note has its ledger entry, with its tax, and each entry its note."""
    entry, note = LedgerEntry, CreditNote
    mine = and_(
        entry.id == note.entry_id,
        entry.kind == literal("credit_note"),
        entry.reference == note.id,
        entry.currency == note.currency,
    )
    found = await connection.stream(
        select(
            note.id,
            note.number,
            note.amount_high,
            note.amount_low,
            note.to_balance_high,
            note.to_balance_low,
            Invoice.document,
            LedgerPosting.ledger,
            LedgerPosting.amount_high.label("posted_high"),
            LedgerPosting.amount_low.label("posted_low"),
        )
        .outerjoin(Invoice, Invoice.id == note.invoice_id)
        .outerjoin(entry, mine)
        .outerjoin(LedgerPosting, LedgerPosting.entry_id == entry.id)
        .order_by(note.id)
    )
    differences: list[str] = []
    rows: list[Any] = []
    async for row in found:
        if rows and rows[0].id != row.id:
            differences += _check_note(rows)
            rows = []
        rows.append(row)
    differences += _check_note(rows) if rows else []
    unknown = await connection.execute(
        select(entry.id)
        .outerjoin(note, mine)
        .where(entry.kind == literal("credit_note"), note.id.is_(None))
        .order_by(entry.id)
    )
    differences += [
        f"corrections: entry {each} of the ledger belongs to no credit note" for (each,) in unknown
    ]
    return differences


def _check_note(rows: Sequence[Any]) -> list[str]:
    """Check a credit note against its invoice and the postings of its entry."""
    head = rows[0]
    posted: Counter[str] = Counter()
    for row in rows:
        if row.ledger is not None:
            posted[row.ledger] += join(row.posted_high, row.posted_low)
    amount = join(head.amount_high, head.amount)
    to_balance = join(head.to_balance_high, head.to_balance)
    if head.document is None:
        return [f"corrections: {head.number}: its invoice is missing"]
    tax = tax_within(
        amount,
        rate=AppliedTax(rate=head.document["tax"]["rate"], reason="").fraction,
        unit=minor_unit(head.document["currency"]),
    )
    # The version before posted the net amount of an adjustment with its events.
    is_net_posted = "adjustments" not in posted or posted["adjustments"] == amount - tax
    if posted and (posted["tax"], posted["prepaid"]) == (tax, -to_balance) and is_net_posted:
        return []
    return [f"corrections: {head.number}: differs from what the ledger posted for it"]
