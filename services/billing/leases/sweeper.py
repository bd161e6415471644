"""Takes back the money of processes that have ended; any number of replicas may do so."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.accounts import lock_accounts, move_money
from services.billing.database import in_transaction
from services.billing.leases import repository
from services.billing.leases.slices import give_up
from services.billing.models import Journal
from services.billing.sources.service import LOST_AFTER, is_complete
from services.common.db import Database
from services.common.errors import Unavailable

EVERY_S = 5.0
_LISTENING_FOR = timedelta(minutes=1)
"""Whoever was deaf for a while must listen again before calling others silent; they all speak
every 30 s."""
_ACCOUNTS_AT_ONCE = 500
_PURGED_AFTER = timedelta(days=30)
"""By then a lost process does not come back."""

log = structlog.get_logger()


async def sweep_for_ever(database: Database) -> None:
    """Sweep until cancelled; while the database is away, try again."""
    last = listening_since = datetime.min.replace(tzinfo=UTC)
    while True:
        await asyncio.sleep(EVERY_S)
        now = datetime.now(UTC)
        if now - last > _LISTENING_FOR / 2:
            listening_since = now
        try:
            await sweep(database, now=now, listening_since=listening_since)
        except Exception as error:  # whatever it was, the next sweep tries again
            log.warning("sweep_failed", error=type(error).__name__)
        else:
            last = now


async def sweep(database: Database, *, now: datetime, listening_since: datetime) -> None:
    """Return the slices of journals of which nothing more is to come.

    They go once a closed journal is complete. Of a journal given up as lost after a long silence
    they stay for 30 days, empty, so that events that come still find them.

    Args:
        listening_since: from when on whoever speaks has been heard.

    Raises:
        Unavailable: the database is away; some may have been returned.
    """
    heard = now - listening_since >= _LISTENING_FOR
    silent_since = now - LOST_AFTER if heard else None
    async with database.snapshot() as session:
        ended = await repository.list_ended(session, silent_since=silent_since)
    for journal in ended:
        try:
            await return_slices(database, journal=journal, now=now, silent_since=silent_since)
        except Unavailable:
            raise
        except Exception as error:  # one journal must not keep the others from being swept
            log.error("slices_not_returned", journal=journal, error=type(error).__name__)
    purge_before = now - _PURGED_AFTER
    async with database.snapshot() as session:
        lost = await repository.list_lost(session, silent_since=purge_before)
    for journal in lost:
        await in_transaction(
            database,
            lambda session, journal=journal: _purge(  # type: ignore[misc]
                session, journal_id=journal, silent_since=purge_before
            ),
        )


async def return_slices(
    database: Database, *, journal: str, now: datetime, silent_since: datetime | None = None
) -> None:
    """Return what a journal's process still holds, if nothing more is to come of it.

    Raises:
        Unavailable: the database is away; some may have been returned.
    """
    after: str | None = ""
    while after is not None:
        after = await in_transaction(
            database,
            lambda session, after=after: _return_some(  # type: ignore[misc]
                session, journal_id=journal, after=after, silent_since=silent_since, now=now
            ),
        )


async def _return_some(
    session: AsyncSession,
    *,
    journal_id: str,
    after: str,
    silent_since: datetime | None,
    now: datetime,
) -> str | None:
    """Return some slices of a journal, if it has still ended; answers where to go on, if anywhere.

    The locks are taken in the order of ingest: the journal, then accounts.
    """
    journal = await repository.lock_journal(session, journal=journal_id)
    if journal is None or not _has_ended(journal, silent_since=silent_since):
        return None
    accounts = [
        account
        for account, _ in await repository.list_slices(
            session, journal=journal_id, after=after, limit=_ACCOUNTS_AT_ONCE
        )
    ]
    known = await lock_accounts(session, accounts=accounts)
    slices = await repository.find_slices(session, accounts=known, journals=[journal_id])
    changes = {held.account: give_up(held) for held in slices.values()}
    await repository.put_money(session, slices=slices.values(), now=now)
    await move_money(session, changes=changes, now=now)
    if journal.closed and is_complete(journal):
        await repository.delete_slices(session, journal=journal_id, accounts=accounts)
    else:
        journal.lost = len(accounts) < _ACCOUNTS_AT_ONCE
    return accounts[-1] if len(accounts) == _ACCOUNTS_AT_ONCE else None


async def _purge(session: AsyncSession, *, journal_id: str, silent_since: datetime) -> None:
    """Delete the empty slices of a journal, if it is still lost."""
    journal = await repository.lock_journal(session, journal=journal_id)
    if journal is not None and journal.lost and journal.heard_at <= silent_since:
        journal.purged = True
        await repository.delete_slices(session, journal=journal_id)


def _has_ended(journal: Journal, *, silent_since: datetime | None) -> bool:
    if journal.closed and is_complete(journal):
        return True
    return silent_since is not None and journal.heard_at <= silent_since
