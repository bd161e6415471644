"""Verify invoices: unchanged, numbered without gaps, and the sums of the events they bill."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import Select, and_, func, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult

from services.billing import amounts
from services.billing.amounts import differing, exact, labelled
from services.billing.archives.comparing import SUMS
from services.billing.archives.verifying import ArchivedEvents
from services.billing.invoices.issuing import digest
from services.billing.invoices.models import (
    AccountCredit,
    Invoice,
    InvoiceLine,
    LateEvent,
    NumberSeries,
)
from services.billing.models import LedgerEntry, Period, UsageEvent
from services.billing.usage.monthly import MONTHLY, MonthlyUsage, is_listed
from services.billing.usage.windows import own_month
from services.common.contracts import format_amount

_IS_INVOICED = Period.invoiced_at.is_not(None)


async def verify_invoices(
    connection: AsyncConnection, archived: ArchivedEvents, used: MonthlyUsage
) -> list[str]:
    """Return a sentence for each difference.

    Args:
        used: what was used in each month.
    """
    return [
        *await _unchanged(connection),
        *await _orphans(connection),
        *await _numbers(connection),
        *await _usage(connection, archived, used),
        *await _entries(connection),
        *await _credits(connection),
        *await _late_events(connection, used),
    ]


async def _unchanged(connection: AsyncConnection) -> list[str]:
    """Check the digest of each invoice, one at a time."""
    differences: list[str] = []
    async for row, lines in _invoices(connection):
        if digest(row, lines) != row["digest"]:
            differences.append(f"invoices: {row['number']}: has been changed")
    return differences


async def _invoices(
    connection: AsyncConnection,
) -> AsyncIterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield each invoice's columns and those of its lines, in order."""
    head, line = Invoice.__table__.columns, InvoiceLine.__table__.columns
    found: AsyncResult[Any] = await connection.stream(
        select(*head, *(column.label(f"line_{column.key}") for column in line))
        .outerjoin(InvoiceLine, InvoiceLine.invoice_id == Invoice.id)
        .order_by(Invoice.id, InvoiceLine.line)
    )
    row: dict[str, Any] = {}
    lines: list[dict[str, Any]] = []
    async for each in found.mappings():
        if row and row["id"] != each["id"]:
            yield row, lines
            lines = []
        row = {column.key: each[column.key] for column in head}
        if each["line_line"] is not None:
            lines.append(_line({column.key: each[f"line_{column.key}"] for column in line}))
    if row:
        yield row, lines


def _line(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a line with whole amounts."""
    for name in ("amount", "rounded"):
        stored[name] = amounts.join(stored.pop(f"{name}_high"), stored[name])
    return stored


async def _orphans(connection: AsyncConnection) -> list[str]:
    """Check that every line has its invoice."""
    found = await connection.execute(
        select(InvoiceLine.invoice_id)
        .distinct()
        .outerjoin(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .where(Invoice.id.is_(None))
        .order_by(InvoiceLine.invoice_id)
    )
    return [f"invoices: {each} is missing, but has lines" for (each,) in found]


async def _numbers(connection: AsyncConnection) -> list[str]:
    """Check that each series counts from 1 without gaps."""
    used = (
        select(
            Invoice.series,
            func.count().label("invoices"),
            func.min(Invoice.sequence).label("first"),
            func.max(Invoice.sequence).label("last"),
        )
        .group_by(Invoice.series)
        .subquery()
    )
    issued = await connection.execute(
        select(used, NumberSeries.last.label("stored")).outerjoin(
            NumberSeries, NumberSeries.id == used.c.series
        )
    )
    unused = await connection.execute(
        select(NumberSeries.id)
        .outerjoin(used, used.c.series == NumberSeries.id)
        .where(NumberSeries.id.like("invoice:%"), used.c.series.is_(None), NumberSeries.last != 0)
    )
    return [
        *(
            f"invoices: series {row.series}: {row.invoices} numbers from {row.first} to "
            f"{row.last}, where the last is {row.stored}"
            for row in issued
            if (row.invoices, row.first, row.last) != (row.stored, 1, row.stored)
        ),
        *(f"invoices: series {series}: its invoices are missing" for (series,) in unused),
    ]


async def _usage(
    connection: AsyncConnection, archived: ArchivedEvents, used: MonthlyUsage
) -> list[str]:
    """Check that the lines of invoiced months add up to the events, to the last 10⁻⁹."""
    invoiced = set(await connection.scalars(select(Period.id).where(_IS_INVOICED)))
    found = await archived.differences(
        connection,
        _usage_differences(used),
        keys={name: name for name in MONTHLY},
        sums={name: name for name in SUMS},
        source=used.archived,
    )
    return [
        f"invoices: account {account}, {period}, model {model}: usage events and lines differ by "
        f"{format_amount(-amount)}"
        for (account, period, model, _), (*_, amount) in found
        if period in invoiced
    ]


def _usage_differences(used: MonthlyUsage) -> Select[Any]:
    amount = exact(InvoiceLine.amount_low, high=InvoiceLine.amount_high)
    events = used.minus(*MONTHLY).subquery()
    lines = (
        select(
            Invoice.account,
            Invoice.period,
            InvoiceLine.model,
            InvoiceLine.price_id,
            *exact(InvoiceLine.requests).named("requests"),
            *exact(InvoiceLine.rows).named("rows"),
            *amount.named("amount"),
        )
        .join(InvoiceLine, InvoiceLine.invoice_id == Invoice.id)
        .join(Period, and_(Period.id == Invoice.period, _IS_INVOICED))
        .where(InvoiceLine.kind == "usage")
    )
    of_invoiced = select(events).join(Period, and_(Period.id == events.c.period, _IS_INVOICED))
    both = union_all(lines, of_invoiced).subquery()
    by = [both.c[name] for name in MONTHLY]
    sums = [part for name in SUMS for part in labelled(both.c, name).total().named(name)]
    differences = differing(select(*by, *sums).group_by(*by).subquery(), *SUMS)
    return differences.order_by(*map(text, MONTHLY))


async def _entries(connection: AsyncConnection) -> list[str]:
    """Check that ledger entries of invoices belong to them."""
    same = and_(LedgerEntry.id == Invoice.entry_id, LedgerEntry.reference == Invoice.period)
    found = await connection.execute(
        select(LedgerEntry.id)
        .outerjoin(Invoice, same)
        .where(LedgerEntry.kind == "invoice", Invoice.id.is_(None))
        .order_by(LedgerEntry.id)
    )
    return [f"invoices: entry {entry} of the ledger belongs to no invoice" for (entry,) in found]


async def _credits(connection: AsyncConnection) -> list[str]:
    """Check that credits were used by invoices that exist."""
    found = await connection.execute(
        select(AccountCredit.id)
        .outerjoin(
            Invoice,
            and_(Invoice.id == AccountCredit.invoice_id, Invoice.account == AccountCredit.account),
        )
        .where(AccountCredit.invoice_id.is_not(None), Invoice.id.is_(None))
        .order_by(AccountCredit.id)
    )
    return [f"invoices: credit {each} was used by no invoice" for (each,) in found]


async def _late_events(connection: AsyncConnection, used: MonthlyUsage) -> list[str]:
    """Check that all events billed in a later month than their own are listed, and no others."""
    event, late = UsageEvent, LateEvent
    missing: Sequence[str] = ()
    if not used.is_listed:
        unlisted = select(event.id).outerjoin(late, is_listed()).where(late.id.is_(None))
        is_late = own_month(event.time) < event.period
        missing = (await connection.scalars(unlisted.where(is_late).order_by(event.id))).all()
    unknown = await connection.scalars(
        select(late.id).outerjoin(event, is_listed()).where(event.id.is_(None)).order_by(late.id)
    )
    return [
        *(f"late_events: event {each} is missing" for each in missing),
        *(f"late_events: event {each} is not billed in that month" for each in unknown),
    ]
