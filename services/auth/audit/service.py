"""Record security events, chain the records by their hashes, and verify the chain.

An act records itself in its own transaction, with one INSERT that waits for nobody: the entry is
pending. A second step, which every replica repeats each second, appends pending entries to the
chain in batches. Only that step must happen one at a time, so sign-ins never wait for one another.
Two processes that seal the same entries at once meet at the rows they delete, or at the primary key
of the chain, and the later one starts again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.audit import repository
from services.auth.audit.chain import (
    FIRST_PREVIOUS,
    ChainedEntry,
    SealedEntry,
    find_break,
    hash_entry,
)
from services.auth.audit.failures import MAX_ADDRESS_CHARS, FailureLog, clip
from services.auth.models import AuditEntry
from services.common.db.database import Database, LostRace
from services.common.errors import Unavailable

OPERATOR = "operator"
"""The actor of what an operator does in a shell."""
BATCH = 1000
"""Entries sealed in one transaction, and read at once by `verify`."""

_MAX_BATCHES = 20


async def record(
    session: AsyncSession,
    action: str,
    *,
    actor: str | None,
    target: str | None = None,
    address: str | None = None,
) -> None:
    """Record an act in the transaction that does it.

    Args:
        action: a noun and what happened to it, such as `client_created`.
        actor: id of the user or client who acts, or `OPERATOR`; None if unknown.
        target: id of what is acted on.
        address: IP address of the request; None for commands.
    """
    row = {"time": datetime.now(UTC), "action": action, "actor": actor, "target": target}
    row["address"] = clip(address, max_chars=MAX_ADDRESS_CHARS)
    await repository.add_pending(session, [row])


async def store_failures(database: Database, failures: FailureLog) -> None:
    """Store what a process has noted."""
    noted = failures.take()
    if not noted:
        return
    rows = [
        {
            "time": each.time,
            "action": each.action,
            "actor": each.actor,
            "target": each.target,
            "address": each.address,
        }
        for each in noted
    ]
    try:
        async with database.transaction() as session:
            await repository.add_pending(session, rows)
    except BaseException:
        failures.put_back(noted)
        raise


async def seal(database: Database) -> SealedEntry | None:
    """Append all pending entries to the chain; return the last one appended.

    Safe in any number of processes at once. Entries that arrive meanwhile are left to the next
    call, so that it ends however fast they arrive.

    Raises:
        Unavailable: the database is unavailable, or other processes were always faster.
    """
    last = None
    for _ in range(_MAX_BATCHES):
        async with database.snapshot() as session:
            if not await repository.has_pending(session):
                return last
        try:
            batch = await _seal_batch(database)
        except (_LostRaceError, LostRace, IntegrityError):
            continue
        last = batch[-1] if batch else last
        if len(batch) < BATCH:
            return last
    if last is None:
        raise Unavailable("The audit log is busy; retry in 1 s.")
    return last


async def list_entries(
    session: AsyncSession, *, before: int | None, limit: int
) -> Sequence[AuditEntry]:
    """Return sealed entries, newest first, starting below the id `before`."""
    return await repository.list_before(session, before=before, limit=limit)


async def list_about(session: AsyncSession, *, user_id: str) -> Sequence[AuditEntry]:
    """Return the newest `BATCH` sealed entries in which a user acts or is acted on."""
    return await repository.list_about(session, user_id=user_id, limit=BATCH)


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of `verify`."""

    entries: int
    """Entries that form an unbroken chain from the first one."""
    last_hash: str
    broken_at: int | None
    """Id of the first entry that does not continue the chain; None if all do."""


async def verify(database: Database) -> Verification:
    """Recompute the chain from its first entry.

    Raises:
        Unavailable: the database is unavailable.
    """
    last_id, last_hash = 0, FIRST_PREVIOUS
    while True:
        async with database.snapshot() as session:
            page = await repository.list_after(session, after=last_id, limit=BATCH)
        broken_at = find_break(page, previous_id=last_id, previous_hash=last_hash)
        if broken_at is not None:
            intact = [entry for entry in page if entry.id < broken_at]
            count = intact[-1].id if intact else last_id
            return Verification(count, intact[-1].hash if intact else last_hash, broken_at)
        if not page:
            return Verification(last_id, last_hash, None)
        last_id, last_hash = page[-1].id, page[-1].hash


class _LostRaceError(Exception):
    """Another process sealed the same entries; this transaction must be rolled back."""


async def _seal_batch(database: Database) -> list[SealedEntry]:
    """Chain the oldest pending entries in one transaction; return them."""
    sealed: list[SealedEntry] = []
    async with database.transaction() as session:
        pending = await repository.list_pending(session, limit=BATCH)
        if not pending:
            return []
        ids = [entry.id for entry in pending]
        if await repository.delete_pending(session, ids=ids) != len(ids):
            raise _LostRaceError
        last: ChainedEntry | None = await repository.find_last(session)
        for entry in pending:
            sealed.append(_follow(last, entry))
            last = sealed[-1]
        await repository.add_sealed(session, [entry._asdict() for entry in sealed])
    return sealed


def _follow(last: ChainedEntry | None, entry: Row[Any]) -> SealedEntry:
    """Return the entry of the chain that follows the last one."""
    sealed = SealedEntry(
        id=last.id + 1 if last else 1,
        time=entry.time,
        actor=entry.actor,
        action=entry.action,
        target=entry.target,
        address=entry.address,
        hash="",
    )
    previous = last.hash if last else FIRST_PREVIOUS
    return sealed._replace(hash=hash_entry(sealed, previous=previous))
