"""Ingest of usage events: each is charged once, however often it is delivered."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.database import in_transaction
from services.billing.events import repository
from services.billing.events.batch import Batch, is_likely_repeat, read_batch
from services.billing.events.rating import Offer, Outcome, find_offer, rate
from services.billing.events.settling import Payment, find_payments, settle_all
from services.billing.ledger.accounts import (
    add_accounts,
    find_currencies,
    lock_accounts,
    move_money,
)
from services.billing.ledger.repository import find_reservations, put_money
from services.billing.periods import lock_periods, period_of
from services.billing.plans.service import read_price_book
from services.billing.sources.ranges import Range
from services.billing.sources.service import mark_received
from services.billing.usage.repository import add_sums, lock_months
from services.common.contracts import IngestResult
from services.common.db.database import Database


async def ingest(
    database: Database, *, items: Sequence[Any], default_plan: str | None, now: datetime
) -> IngestResult:
    """Ingest a delivery of CloudEvents, in one transaction.

    Args:
        items: the events as parsed JSON, valid or not.
        default_plan: the plan of accounts without one of their own.

    Raises:
        Unavailable: nothing was accepted; deliver again later.
    """
    batch = read_batch(items, now=now)

    async def attempt(*, look_up_all: bool) -> IngestResult:
        return await in_transaction(
            database,
            lambda session: _ingest(
                session, batch, default_plan=default_plan, now=now, look_up_all=look_up_all
            ),
        )

    try:
        return await attempt(look_up_all=False)
    except _UnexpectedRepeats:
        return await attempt(look_up_all=True)


class _UnexpectedRepeats(Exception):
    """Events that looked new are repeats, or cannot be charged and may be repeats."""


async def _ingest(
    session: AsyncSession,
    batch: Batch,
    *,
    default_plan: str | None,
    now: datetime,
    look_up_all: bool,
) -> IngestResult:
    """Ingest a batch in one transaction.

    Every transaction takes its locks in the same order (periods, journals, prepaid accounts, sums),
    each sorted by key, so that two batches never deadlock.

    Args:
        look_up_all: whether to look up every event among those accepted before, or only likely
            repeats. Looking up thousands costs nearly as much as storing them, and an unexpected
            repeat is detected by its key.

    Raises:
        _UnexpectedRepeats: start over and look up all events.
    """
    arrivals = batch.arrivals
    open_period = period_of(now)
    closed = await lock_periods(
        session, wanted={arrival.period for arrival in arrivals} | {open_period}
    )
    arrived_before = await mark_received(session, arrived=batch.numbers, now=now)

    named = {arrival.event.data.price_id or "" for arrival in arrivals}
    named |= {spend.price_id for spend in batch.spent.values()}
    book = await read_price_book(
        session,
        accounts={a.event.subject for a in arrivals if a.event.data.price_id is None},
        price_ids=named - {""},
        default_plan=default_plan,
    )
    offers = {
        arrival.index: find_offer(arrival, book=book, closed=closed, open_period=open_period)
        for arrival in arrivals
    }
    payments = find_payments(batch, offers=offers, book=book)
    funds = await lock_accounts(session, accounts={payment.account for payment in payments})
    known = await repository.find_fingerprints(
        session,
        keys={
            arrival.key
            for arrival in arrivals
            if look_up_all or is_likely_repeat(arrival, arrived_before=arrived_before)
        },
    )
    offered = {
        offer.month: offer.plan.currency
        for arrival in arrivals
        if isinstance(offer := offers[arrival.index], Offer) and arrival.key not in known
    }
    months = await lock_months(session, keys=offered.keys())
    # A price charged before is in its account's currency; only the others are looked up.
    currencies = {
        month.account: currency for month, currency in offered.items() if months[month].requests
    } | {account: each.currency for account, each in funds.items()}
    subjects = {arrival.event.subject for arrival in arrivals}
    currencies |= await find_currencies(session, accounts=subjects - currencies.keys())
    outcome = rate(
        [(arrival, offers[arrival.index]) for arrival in arrivals],
        known=known,
        months=months,
        currencies=currencies,
        funds=funds,
    )
    if outcome.rejected and not look_up_all:
        raise _UnexpectedRepeats
    await add_accounts(session, currencies=outcome.currencies, now=now)
    late = await _settle(
        session,
        payments=[each for each in payments if each.account in funds.keys() | outcome.currencies],
        outcome=outcome,
        arrived_before=arrived_before,
        now=now,
    )
    try:
        await repository.add_events(session, events=outcome.accepted, late=late, now=now)
    except IntegrityError as error:
        if look_up_all:
            raise
        raise _UnexpectedRepeats from error
    await repository.add_conflicts(session, conflicts=outcome.conflicts, now=now)
    await add_sums(session, months=outcome.months, hours=outcome.hours)
    return IngestResult(
        accepted=len(outcome.accepted),
        duplicates=outcome.duplicates,
        conflicts=len(outcome.conflicts),
        rejected=sorted([*batch.rejected, *outcome.rejected], key=lambda each: each.index),
    )


async def _settle(
    session: AsyncSession,
    *,
    payments: Sequence[Payment],
    outcome: Outcome,
    arrived_before: Mapping[str, Sequence[Range]],
    now: datetime,
) -> set[int]:
    """Settle what was spent of reservations; return the events that came after the reclaim."""
    if not payments:
        return set()
    reservations = await find_reservations(
        session,
        accounts={payment.account for payment in payments},
        journals={payment.journal for payment in payments if payment.journal},
    )
    settlement = settle_all(
        payments,
        charged={rated.arrival.index for rated in outcome.accepted},
        arrived_before=arrived_before,
        reservations=reservations,
    )
    await put_money(session, reservations=settlement.changed.values(), now=now)
    await move_money(session, changes=settlement.available, now=now)
    return settlement.late
