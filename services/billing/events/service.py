"""Ingest of usage events: each is charged once, however often it is delivered."""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.bulk_insert import insert_all
from services.billing.corrections.recalls import note_arrivals
from services.billing.events import repository
from services.billing.events.batch import Batch, find_likely_repeats, read_batch
from services.billing.events.deciding import Decisions, Priced, Stored, decide, price
from services.billing.events.posting import usage_entries
from services.billing.events.rating import Offer
from services.billing.ledger.accounts import (
    add_accounts,
    find_currencies,
    lock_money,
    store_money,
)
from services.billing.ledger.posting import post
from services.billing.periods import lock_open_period
from services.billing.plans.service import read_price_book
from services.billing.sources.service import LockedJournals, lock_journals, mark_received
from services.billing.usage.service import add_to_breakdowns, lock_months, sum_inserts
from services.common.contracts import IngestResult
from services.common.db.database import Database
from services.common.db.retrying import in_transaction


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
    """Ingest a batch in one transaction: load and lock, decide, write.

    Args:
        look_up_all: whether to look up every event among those accepted before, or only likely
            repeats. Looking up thousands costs nearly as much as storing them, and an unexpected
            repeat is detected by its key.

    Raises:
        _UnexpectedRepeats: start over and look up all events.
    """
    priced, stored, journals = await _load(
        session, batch, default_plan=default_plan, now=now, look_up_all=look_up_all
    )
    decisions = decide(batch, priced, stored)
    if decisions.rating.rejected and not look_up_all:
        raise _UnexpectedRepeats
    await _write(
        session, decisions, batch=batch, journals=journals, now=now, look_up_all=look_up_all
    )
    rating = decisions.rating
    return IngestResult(
        accepted=len(rating.accepted),
        duplicates=rating.duplicates,
        conflicts=len(rating.conflicts),
        rejected=sorted([*batch.rejected, *rating.rejected], key=lambda each: each.index),
    )


async def _load(
    session: AsyncSession,
    batch: Batch,
    *,
    default_plan: str | None,
    now: datetime,
    look_up_all: bool,
) -> tuple[Priced, Stored, LockedJournals]:
    """Load what the decisions about a batch depend on, and lock it.

    Every transaction takes its locks in the same order (periods, journals, prepaid accounts, sums),
    each sorted by key, so that two batches never deadlock.
    """
    arrivals = batch.arrivals
    open_period, closed = await lock_open_period(
        session, now=now, wanted={arrival.period for arrival in arrivals}
    )
    journals = await lock_journals(session, arriving=batch.numbers, now=now)
    named = {arrival.event.data.price_id or "" for arrival in arrivals}
    named |= {spend.price_id for spend in batch.spent.values()}
    book = await read_price_book(
        session,
        accounts={a.event.subject for a in arrivals if a.event.data.price_id is None},
        price_ids=named - {""},
        default_plan=default_plan,
    )
    priced = price(batch, book=book, closed=closed, open_period=open_period)
    money = await lock_money(
        session,
        accounts={payment.account for payment in priced.payments},
        journals={payment.journal for payment in priced.payments if payment.journal},
    )
    doubtful = arrivals if look_up_all else find_likely_repeats(arrivals, before=journals.ranges)
    known = await repository.find_fingerprints(session, keys={arrival.key for arrival in doubtful})
    offered = {
        offer.month: offer.currency
        for arrival in arrivals
        if isinstance(offer := priced.offers[arrival.index], Offer) and arrival.key not in known
    }
    months = await lock_months(session, keys=offered.keys())
    # A price charged before is in its account's currency; only the others are looked up.
    currencies = {
        month.account: currency for month, currency in offered.items() if months[month].requests
    } | {account: funds.currency for account, funds in money.funds.items()}
    subjects = {arrival.event.subject for arrival in arrivals}
    currencies |= await find_currencies(session, accounts=subjects - currencies.keys())
    stored = Stored(
        arrived_before=journals.ranges,
        known=known,
        months=months,
        currencies=currencies,
        money=money,
    )
    return priced, stored, journals


async def _write(
    session: AsyncSession,
    decisions: Decisions,
    *,
    batch: Batch,
    journals: LockedJournals,
    now: datetime,
    look_up_all: bool,
) -> None:
    """Write what has arrived and what was decided about it.

    Raises:
        _UnexpectedRepeats: an event that was not looked up is a repeat.
    """
    rating, settlement = decisions.rating, decisions.settlement
    await mark_received(session, journals, arriving=batch.numbers, now=now)
    await add_accounts(session, currencies=rating.currencies, now=now)
    await store_money(
        session,
        reservations=settlement.reservations.values(),
        changes=settlement.changes,
        now=now,
    )
    entries = {
        entry.currency: await post(session, entry) for entry in usage_entries(rating, now=now)
    }
    events = repository.event_inserts(
        rating.accepted, entries=entries, late=settlement.late, now=now
    )
    sums = sum_inserts(session, months=rating.months, hours=rating.hours, versions=rating.versions)
    try:
        await insert_all(session, chain(events, sums))
    except IntegrityError as error:
        if look_up_all:
            raise
        raise _UnexpectedRepeats from error
    await note_arrivals(session, accepted=rating.accepted)
    await repository.add_conflicts(session, conflicts=rating.conflicts, now=now)
    await add_to_breakdowns(session, rating.breakdowns)
