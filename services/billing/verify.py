"""Verify the books: recompute every stored sum from the usage events.

The events are read once, some hours at a time. That compares the sums of hours, and adds up what
the other checks need: from right sums of hours follow those of months and of invoices. Only what
differs is looked at again. All checks see the database at one moment, so usage may arrive
meanwhile; only identities and the digests of entries, which are compared with nothing else, are
checked at the same time, on a connection of their own. The longest statements are made once per
process, which takes more time than executing them on few rows.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from sqlalchemy import Select, func, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.amounts import NOTHING, Exact, exact, labelled
from services.billing.amounts import differing as differing_sums
from services.billing.archives.models import is_not_archived
from services.billing.archives.reading import NO_ARCHIVES, Archives
from services.billing.archives.verifying import ArchivedEvents, open_archived
from services.billing.database import long_snapshot
from services.billing.fingerprints import Weights, new_weights
from services.billing.models import (
    Account,
    Credit,
    CreditReservation,
    EventKey,
    LedgerPosting,
    Plan,
    Price,
    UsageEvent,
    UsageMonth,
)
from services.billing.sources.models import Journal, JournalRange
from services.billing.usage.comparing import scan_events
from services.billing.verify_corrections import verify_corrections
from services.billing.verify_fees import verify_fees
from services.billing.verify_invoices import verify_invoices
from services.billing.verify_ledger import ledger_fingerprint, verify_entries, verify_ledger
from services.billing.verify_receivables import verify_receivables
from services.billing.verify_usage import verify_usage
from services.common.contracts import format_amount
from services.common.db.database import Database
from services.common.tasks import end_tasks


async def verify(database: Database, archives: Archives = NO_ARCHIVES) -> list[str]:
    """Recompute what is stored twice; return a sentence for each difference.

    Raises:
        DBAPIError: the database is unavailable.
        ArchiveUnreachable: the folder or bucket of archived months cannot be used.
        DuckDbNotInstalled: months are archived, and what reads them is missing.
    """
    weights = new_weights() if database.engine.dialect.name == "mysql" else None
    async with (
        long_snapshot(database) as connection,
        open_archived(connection, archives.store, weights) as archived,
        long_snapshot(database) as another,
    ):
        if archived.problems:
            return [*archived.problems, "archives: the other sums were not compared"]
        alone = asyncio.create_task(_check_alone(another, archived, weights))
        try:
            return [*await _compare(connection, archived, weights), *await alone]
        finally:
            await end_tasks([alone])


async def _compare(
    connection: AsyncConnection, archived: ArchivedEvents, weights: Weights | None
) -> list[str]:
    """Make all comparisons."""
    fingerprint = weights and await ledger_fingerprint(connection, weights)
    scan = await scan_events(connection, fingerprint=fingerprint and fingerprint.of_event())
    differences, used = await verify_usage(connection, archived, scan)
    return [
        *differences,
        *await _reservations(connection, archived),
        *await _balances(connection),
        *await verify_ledger(
            connection, archived, fingerprint=fingerprint, events=scan.fingerprint
        ),
        *await verify_invoices(connection, archived, used),
        *await verify_fees(connection),
        *await verify_corrections(connection, archived),
        *await verify_receivables(connection),
        *await _currencies(connection),
        *await _journals(connection),
    ]


async def _check_alone(
    connection: AsyncConnection, archived: ArchivedEvents, weights: Weights | None
) -> list[str]:
    """Check what is compared with nothing else."""
    return [
        *await verify_entries(connection),
        *await _identities(connection, archived, weights),
    ]


def _prepaid(*keys: Any) -> Select[Any]:
    """Select what prepaid usage events charged, by some columns."""
    amount = exact(UsageEvent.amount_low, high=UsageEvent.amount_high)
    return (
        select(*keys, *amount.total().named("amount"))
        .join(Price, Price.id == UsageEvent.price_id)
        .join(Plan, Plan.id == Price.plan_id)
        .where(Plan.billing == "prepaid", is_not_archived())
        .group_by(*keys)
    )


async def _reservation_keys(connection: AsyncConnection) -> AsyncIterator[tuple[str, str]]:
    found = select(CreditReservation.account, CreditReservation.journal)
    async for row in await connection.stream(found):
        yield row.account, row.journal


async def _reservations(connection: AsyncConnection, archived: ArchivedEvents) -> list[str]:
    """Check that each reservation's `settled` is what it was charged plus what was returned."""
    earlier = await archived.paid(_reservation_keys(connection))
    found = await connection.stream(_charged_reservations())
    differences: list[str] = []
    async for row in found:
        granted, settled = labelled(row, "granted").value(), labelled(row, "settled").value()
        paid = 0 if row.amount_0 is None else labelled(row, "amount").value()
        paid += earlier.get((row.account, row.journal), 0)
        expected = paid + labelled(row, "returned").value()
        if settled != expected or settled > granted:
            differences.append(
                f"reservations: account {row.account}, journal {row.journal}: "
                f"{format_amount(settled)} settled of {format_amount(granted)} granted, where the "
                f"usage events say {format_amount(expected)}"
            )
    return differences


@cache
def _charged_reservations() -> Select[Any]:
    charged = _prepaid(UsageEvent.account, UsageEvent.journal).subquery()
    return (
        select(
            CreditReservation.account,
            CreditReservation.journal,
            *exact(CreditReservation.granted_low, high=CreditReservation.granted_high).named(
                "granted"
            ),
            *exact(CreditReservation.settled_low, high=CreditReservation.settled_high).named(
                "settled"
            ),
            *exact(CreditReservation.returned_low, high=CreditReservation.returned_high).named(
                "returned"
            ),
            *labelled(charged.c, "amount").named("amount"),
        )
        .outerjoin(
            charged,
            (charged.c.account == CreditReservation.account)
            & (charged.c.journal == CreditReservation.journal),
        )
        .order_by(CreditReservation.account, CreditReservation.journal)
    )


async def _balances(connection: AsyncConnection) -> list[str]:
    """Check that each balance is what the ledger says."""
    found = await connection.execute(_balance_differences())
    return [
        f"balances: account {row.account}: {format_amount(labelled(row, 'has').value())}, where "
        f"the ledger says {format_amount(labelled(row, 'should').value())}"
        for row in found
    ]


@cache
def _balance_differences() -> Select[Any]:
    granted = exact(CreditReservation.granted_low, high=CreditReservation.granted_high)
    settled = exact(CreditReservation.settled_low, high=CreditReservation.settled_high)
    posted = exact(LedgerPosting.amount_low, high=LedgerPosting.amount_high)
    available = exact(Account.available_low, high=Account.available_high)
    parts = union_all(
        _balance(Account.id, has=available),
        _balance(CreditReservation.account, has=granted),
        _balance(CreditReservation.account, has=settled.minus()),
        _balance(LedgerPosting.account, should=posted.minus()).where(
            LedgerPosting.ledger == "prepaid"
        ),
    ).subquery()
    names = ("has", "should", "more")
    sums = [part for name in names for part in labelled(parts.c, name).total().named(name)]
    balances = select(parts.c.account, *sums).group_by(parts.c.account).subquery()
    return differing_sums(balances, "more").order_by(text("account"))


def _balance(account: Any, *, has: Exact = NOTHING, should: Exact = NOTHING) -> Select[Any]:
    """Select a part of what an account has or should have, and of the difference."""
    more = has if should is NOTHING else should.minus()
    return select(
        account.label("account"), *has.named("has"), *should.named("should"), *more.named("more")
    )


async def _currencies(connection: AsyncConnection) -> list[str]:
    """Check that all of an account's money is in its currency."""
    credited = select(Credit.account, Credit.currency)
    charged = (
        select(UsageMonth.account, Plan.currency)
        .join(Price, Price.id == UsageMonth.price_id)
        .join(Plan, Plan.id == Price.plan_id)
    )
    used = credited.union(charged).subquery()
    found = await connection.execute(
        select(Account.id, Account.currency, used.c.currency)
        .join(used, used.c.account == Account.id)
        .where(used.c.currency != Account.currency)
        .order_by(Account.id, used.c.currency)
    )
    return [
        f"accounts: account {account}: {currency}, where its money is in {other}"
        for account, currency, other in found
    ]


async def _identities(
    connection: AsyncConnection, archived: ArchivedEvents, weights: Weights | None
) -> list[str]:
    """Check that every usage event has its identity; otherwise a repeat would look new."""
    if weights is not None:
        key, event = EventKey, UsageEvent
        total = select(func.sum(weights.of(key.id, key.source)))
        keys = await connection.scalar(total)
        total = select(func.sum(weights.of(event.id, event.source))).where(is_not_archived())
        events = await connection.scalar(total)
        if int(keys or 0) == int(events or 0) + archived.identities:
            return []
    same = (EventKey.id == UsageEvent.id) & (EventKey.source == UsageEvent.source)
    found = await connection.execute(
        select(UsageEvent.account, func.count())
        .outerjoin(EventKey, same)
        .where(EventKey.id.is_(None))
        .group_by(UsageEvent.account)
        .order_by(UsageEvent.account)
    )
    return [
        f"usage_event_keys: account {account}: {missing} usage events have no identity"
        for account, missing in found
    ]


async def _journals(connection: AsyncConnection) -> list[str]:
    """Check that each journal's counts match its ranges."""
    found = await connection.stream(_counted_journals())
    differences: list[str] = []
    async for row in found:
        received = 0
        if row.runs is not None:
            firsts, lasts = labelled(row, "firsts").value(), labelled(row, "lasts").value()
            received = lasts - firsts + row.runs
        if (row.received, row.highest) != (received, row.end or 0):
            differences.append(
                f"journals: journal {row.id}: {row.received} received up to {row.highest}, where "
                f"its ranges say {received} up to {row.end or 0}"
            )
    return differences


@cache
def _counted_journals() -> Select[Any]:
    ranges = (
        select(
            JournalRange.journal,
            *exact(JournalRange.first).total().named("firsts"),
            *exact(JournalRange.last).total().named("lasts"),
            func.count().label("runs"),
            func.max(JournalRange.last).label("highest"),
        )
        .group_by(JournalRange.journal)
        .subquery()
    )
    return (
        select(
            Journal.id,
            Journal.received,
            Journal.highest,
            *labelled(ranges.c, "firsts").named("firsts"),
            *labelled(ranges.c, "lasts").named("lasts"),
            ranges.c.runs,
            ranges.c.highest.label("end"),
        )
        .outerjoin(ranges, ranges.c.journal == Journal.id)
        .order_by(Journal.id)
    )
