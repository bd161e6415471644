"""Taking usage events: each is counted and charged once, however often it is delivered."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.accounts import add_accounts, find_currencies
from services.billing.database import in_transaction
from services.billing.events import repository
from services.billing.events.batch import Batch, read_batch
from services.billing.events.rating import Offer, find_offer, rate
from services.billing.periods import hold_periods, period_of
from services.billing.plans.service import read_price_book
from services.billing.sources.service import mark
from services.billing.usage.repository import add_sums, lock_months
from services.common.contracts import IngestResult
from services.common.db import Database


async def ingest(
    database: Database, *, items: Sequence[Any], default_plan: str | None, now: datetime
) -> IngestResult:
    """Take a delivery of CloudEvents, whole or not at all.

    Args:
        items: the events as parsed JSON, valid or not.
        default_plan: the plan of accounts without one of their own.

    Raises:
        Unavailable: nothing was taken; deliver again later.
    """
    batch = read_batch(items, now=now)
    return await in_transaction(
        database, lambda session: _take(session, batch, default_plan=default_plan, now=now)
    )


async def _take(
    session: AsyncSession, batch: Batch, *, default_plan: str | None, now: datetime
) -> IngestResult:
    """Every transaction takes its locks in this order: periods, journals, accounts, sums.

    Within each they are sorted by key, so that two batches never wait for each other in a circle.
    """
    arrivals = batch.arrivals
    open_period = period_of(now)
    closed = await hold_periods(
        session, wanted={arrival.period for arrival in arrivals} | {open_period}
    )
    await mark(session, arrived=batch.numbers, now=now)

    subjects = {arrival.event.subject for arrival in arrivals}
    named = {arrival.event.data.price_id or "" for arrival in arrivals}
    book = await read_price_book(
        session, accounts=subjects, price_ids=named - {""}, default_plan=default_plan
    )
    known = await repository.find_fingerprints(session, keys={a.key for a in arrivals})
    offers = [
        (arrival, find_offer(arrival, book=book, closed=closed, open_period=open_period))
        for arrival in arrivals
    ]
    outcome = rate(
        offers,
        known=known,
        months=await lock_months(
            session,
            keys={
                offer.month
                for arrival, offer in offers
                if isinstance(offer, Offer) and arrival.key not in known
            },
        ),
        currencies=await find_currencies(session, accounts=subjects),
    )
    await add_accounts(session, currencies=outcome.currencies, now=now)
    await repository.add_events(session, events=outcome.accepted, now=now)
    await repository.add_conflicts(session, conflicts=outcome.conflicts, now=now)
    await add_sums(session, months=outcome.months, hours=outcome.hours)
    return IngestResult(
        accepted=len(outcome.accepted),
        duplicates=outcome.duplicates,
        conflicts=len(outcome.conflicts),
        rejected=sorted([*batch.rejected, *outcome.rejected], key=lambda each: each.index),
    )
