"""The sweeper reclaims the credit of processes that have ended; any replica may do it."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.ledger import repository
from services.billing.ledger.accounts import store_money
from services.billing.ledger.reservations import SWEEP_EVERY_S, reclaim
from services.billing.sources import service as sources
from services.billing.sources.service import LOST_AFTER
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from services.common.errors import Unavailable

_LISTENS_FOR = timedelta(minutes=1)
"""How long billing must have been reachable before silence counts; processes report every 30 s."""
ACCOUNTS_AT_ONCE = 500
"""Reservations that one transaction reclaims."""
_PURGED_AFTER = timedelta(days=30)
"""A lost process is not expected back after this long."""

log = structlog.get_logger()


async def sweep_forever(database: Database, *, every_s: float = SWEEP_EVERY_S) -> None:
    """Sweep every so many seconds until cancelled; after a failure, try again."""
    last = listening_since = datetime.min.replace(tzinfo=UTC)
    while True:
        await asyncio.sleep(every_s)
        now = datetime.now(UTC)
        if now - last > _LISTENS_FOR / 2:
            listening_since = now
        try:
            await sweep(database, now=now, listening_since=listening_since)
        except Exception as error:  # the next sweep tries again
            log.warning("sweep_failed", error=type(error).__name__)
        else:
            last = now


async def sweep(
    database: Database,
    *,
    now: datetime,
    listening_since: datetime,
    accounts_at_once: int = ACCOUNTS_AT_ONCE,
) -> None:
    """Reclaim the reservations of journals that expect no more events.

    The reservations of a closed journal are deleted once it is complete. Those of a journal that is
    declared lost stay for 30 days, empty, so that late events still find them.

    Args:
        listening_since: since when billing has been reachable without a break.
        accounts_at_once: how many reservations one transaction reclaims.

    Raises:
        Unavailable: the database is unavailable; some credit may have been reclaimed.
    """
    can_judge = now - listening_since >= _LISTENS_FOR
    silent_since = now - LOST_AFTER if can_judge else None
    async with database.snapshot() as session:
        ended = await repository.list_reclaimable(session, silent_since=silent_since)
    for journal in ended:
        try:
            await reclaim_reservations(
                database,
                journal=journal,
                now=now,
                silent_since=silent_since,
                accounts_at_once=accounts_at_once,
            )
        except Unavailable:
            raise
        except Exception as error:  # one journal must not block the others
            log.error("reservation_reclaim_failed", journal=journal, error=type(error).__name__)
    purge_before = now - _PURGED_AFTER
    async with database.snapshot() as session:
        lost = await repository.list_purgeable(session, silent_since=purge_before)
    for journal in lost:
        await in_transaction(
            database,
            lambda session, journal=journal: _purge(  # type: ignore[misc]
                session, journal_id=journal, silent_since=purge_before
            ),
        )


async def reclaim_reservations(
    database: Database,
    *,
    journal: str,
    now: datetime,
    silent_since: datetime | None = None,
    accounts_at_once: int = ACCOUNTS_AT_ONCE,
) -> None:
    """Reclaim a journal's unspent credit, if no more of its events are expected.

    Raises:
        Unavailable: the database is unavailable; some credit may have been reclaimed.
    """
    after: str | None = ""
    while after is not None:
        after = await in_transaction(
            database,
            lambda session, after=after: _reclaim_some(  # type: ignore[misc]
                session,
                journal_id=journal,
                after=after,
                silent_since=silent_since,
                now=now,
                at_once=accounts_at_once,
            ),
        )


async def _reclaim_some(
    session: AsyncSession,
    *,
    journal_id: str,
    after: str,
    silent_since: datetime | None,
    now: datetime,
    at_once: int,
) -> str | None:
    """Reclaim some reservations of a journal, if it is still ended; return where to continue.

    Locks are taken in the same order as at ingest: the journal, then accounts.
    """
    journal = await sources.lock_ended(session, journal_id=journal_id, silent_since=silent_since)
    if journal is None:
        return None
    accounts = [
        key.account
        for key in await repository.list_reservations(
            session, journal=journal_id, after=after, limit=at_once
        )
    ]
    is_last = len(accounts) < at_once
    if accounts:
        await _reclaim(session, journal_id=journal_id, accounts=accounts, now=now)
    if sources.is_finished(journal):
        await repository.delete_reservations(session, journal=journal_id, accounts=accounts)
    elif is_last:
        sources.mark_lost(journal)
    return None if is_last else accounts[-1]


async def _reclaim(
    session: AsyncSession, *, journal_id: str, accounts: Sequence[str], now: datetime
) -> None:
    """Give the unspent credit of a locked journal back to some accounts."""
    known = await repository.lock_accounts(session, accounts=accounts)
    reservations = await repository.find_reservations(
        session, accounts=known, journals=[journal_id]
    )
    await store_money(
        session,
        reservations=[reclaim(each) for each in reservations.values()],
        changes={each.account: each.granted - each.settled for each in reservations.values()},
        now=now,
    )


async def _purge(session: AsyncSession, *, journal_id: str, silent_since: datetime) -> None:
    """Delete the empty reservations of a journal, if it is still lost."""
    journal = await sources.lock_lost(session, journal_id=journal_id, silent_since=silent_since)
    if journal is not None:
        sources.mark_purged(journal)
        await repository.delete_reservations(session, journal=journal_id)
