"""Verify the ledger: each entry by itself, and against what it was posted for.

Every cell is covered. The digest of an entry fixes its own columns and those of its postings; the
sums compare it with the usage events and credits that name it.
"""

from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, case, func, literal, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult

from services.billing import amounts
from services.billing.amounts import Exact, differing, exact, labelled
from services.billing.archives.models import is_not_archived
from services.billing.archives.verifying import ArchivedEvents
from services.billing.ledger.entries import OPENING, digest
from services.billing.models import Credit, LedgerEntry, LedgerPosting, Plan, Price, UsageEvent
from services.common.contracts import format_amount

_POSTED = exact(LedgerPosting.amount_low, high=LedgerPosting.amount_high)


async def verify_ledger(connection: AsyncConnection, archived: ArchivedEvents) -> list[str]:
    """Return a sentence for each difference."""
    return [
        *await _entries(connection),
        *await _orphans(connection),
        *await _usage(connection, archived, by="account"),
        *await _usage(connection, archived, by="model"),
        *await _credits(connection),
    ]


async def _entries(connection: AsyncConnection) -> list[str]:
    """Check that each entry is balanced and unchanged, one at a time."""
    differences: list[str] = []
    async for rows in _by_entry(connection):
        head = rows[0]
        lines = [
            (row.line, row.ledger, row.account, row.model, amounts.join(row.high, row.low))
            for row in rows
            if row.line is not None
        ]
        if not lines or sum(line[-1] for line in lines) != 0:
            differences.append(f"ledger: entry {head.id}: the postings do not add up to zero")
        if digest((head.kind, head.currency, head.reference, head.created_at), lines) != (
            head.digest
        ):
            differences.append(f"ledger: entry {head.id}: has been changed")
    return differences


async def _by_entry(connection: AsyncConnection) -> AsyncIterator[list[Row[Any]]]:
    """Yield the rows of each entry; there is at least one."""
    found: AsyncResult[Any] = await connection.stream(
        select(
            LedgerEntry.id,
            LedgerEntry.kind,
            LedgerEntry.currency,
            LedgerEntry.reference,
            LedgerEntry.created_at,
            LedgerEntry.digest,
            LedgerPosting.line,
            LedgerPosting.ledger,
            LedgerPosting.account,
            LedgerPosting.model,
            LedgerPosting.amount_high.label("high"),
            LedgerPosting.amount_low.label("low"),
        )
        .outerjoin(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
        .order_by(LedgerEntry.id, LedgerPosting.line)
    )
    rows: list[Row[Any]] = []
    async for row in found:
        if rows and rows[0].id != row.id:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


async def _orphans(connection: AsyncConnection) -> list[str]:
    found = await connection.execute(
        select(LedgerPosting.entry_id)
        .distinct()
        .outerjoin(LedgerEntry, LedgerEntry.id == LedgerPosting.entry_id)
        .where(LedgerEntry.id.is_(None))
        .order_by(LedgerPosting.entry_id)
    )
    return [f"ledger: entry {entry} is missing, but has postings" for (entry,) in found]


async def _usage(connection: AsyncConnection, archived: ArchivedEvents, *, by: str) -> list[str]:
    """Check that usage entries are the sums of their events, by account or by model."""
    paid_by = "CASE WHEN list_contains($prepaid, price_id) THEN 'prepaid' ELSE 'receivable' END"
    found = await archived.differences(
        connection,
        _usage_differences(by),
        keys={
            "entry": "entry_id",
            "ledger": paid_by if by == "account" else "'revenue'",
            "owner": by,
        },
        sums={"amount": "-amount" if by == "account" else "amount"},
    )
    return [
        f"ledger: entry {OPENING if entry == '0' else entry}: {name}, {by} {owner}: differs from "
        f"the usage events by {format_amount(amount)}"
        for (entry, name, owner), (amount,) in found
    ]


@cache
def _usage_differences(by: str) -> Select[Any]:
    what = LedgerPosting.account if by == "account" else LedgerPosting.model
    amount = exact(UsageEvent.amount_low, high=UsageEvent.amount_high).total()
    ledger: ColumnElement[str] = case(
        (Plan.billing == "prepaid", literal("prepaid")), else_=literal("receivable")
    )
    if by == "account":
        kept, owner = LedgerPosting.ledger != "revenue", UsageEvent.account
    else:
        kept, ledger, owner = (
            LedgerPosting.ledger == "revenue",
            literal("revenue"),
            UsageEvent.model,
        )
        amount = amount.minus()
    keys = (func.coalesce(UsageEvent.entry_id, 0), ledger, owner)
    events = (
        _line(*keys, amount)
        .select_from(UsageEvent)
        .join(Price, Price.id == UsageEvent.price_id)
        .join(Plan, Plan.id == Price.plan_id)
        .where(is_not_archived())
        .group_by(UsageEvent.entry_id, Plan.billing, owner)
    )
    return _differing(events, _negative_postings("usage", what, kept))


async def _credits(connection: AsyncConnection) -> list[str]:
    """Check that the entries of credits are what was credited."""
    found = await connection.execute(_credit_differences())
    return [
        f"ledger: entry {row.entry or OPENING}: {row.ledger}, account {row.owner}: differs from "
        f"the credits by {format_amount(labelled(row, 'amount').value())}"
        for row in found
    ]


@cache
def _credit_differences() -> Select[Any]:
    amount = exact(Credit.amount_low, high=Credit.amount_high).minus()
    credits = _line(func.coalesce(Credit.entry_id, 0), literal("prepaid"), Credit.account, amount)
    postings = _negative_postings(
        "credit", LedgerPosting.account, LedgerPosting.ledger != "promotional"
    )
    return _differing(credits, postings)


def _negative_postings(kind: str, owner: Any, kept: ColumnElement[bool]) -> Select[Any]:
    entry = case((LedgerEntry.reference == OPENING, 0), else_=LedgerEntry.id)
    return (
        _line(entry, LedgerPosting.ledger, owner, _POSTED.minus())
        .select_from(LedgerEntry)
        .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
        .where(LedgerEntry.kind == kind, kept)
    )


def _line(entry: Any, ledger: Any, owner: Any, amount: Exact) -> Select[Any]:
    return select(
        entry.label("entry"),
        ledger.label("ledger"),
        owner.label("owner"),
        *amount.named("amount"),
    )


def _differing(one: Select[Any], other: Select[Any]) -> Select[Any]:
    """Select the sums of two selections, one of them negated, that are not zero."""
    both = union_all(one, other).subquery()
    keys = (both.c.entry, both.c.ledger, both.c.owner)
    total = labelled(both.c, "amount").total().named("amount")
    sums = select(*keys, *total).group_by(*keys).subquery()
    order = (text("entry"), text("ledger"), text("owner"))
    return differing(sums, "amount").order_by(*order)
