"""Recalls: standing rules that take back every event answered by a version of a model.

A recall is stored under the lock that closing a month takes: batches that did not see it are done
by then. The worker lists the accounts that used the model, and reads the events of each from where
it was, in the order of an index. Later batches see the recall and list their events of it as
arrivals, which the worker takes back, too. Any replica may do it, and it may be killed at any
moment. Every account gets its turn: neither a large one nor one that fails delays the others.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from datetime import UTC, datetime
from uuid import uuid4

import structlog
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.archives.reading import NO_ARCHIVES, Archives
from services.billing.corrections import repository
from services.billing.corrections.models import Recall, RecallAccount
from services.billing.corrections.reversing import reverse
from services.billing.corrections.selecting import (
    Charged,
    Window,
    find_reversed,
    list_arrived,
    list_next_anywhere,
)
from services.billing.event_places import EventPlace
from services.billing.events.rating import Rated
from services.billing.fields import Reason
from services.billing.ledger.accounts import lock_money
from services.billing.periods import wait_for_batches
from services.common.contracts import Name
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from services.common.errors import ServiceError

APPLY_EVERY_S = 2.0
"""How often recalled events are taken back."""
EVENTS_AT_ONCE = 1000
"""Events that one transaction takes back."""
_STEPS_AT_ONCE = 10
"""Transactions for one account before the others get their turn."""
_ACCOUNTS_AT_ONCE = 100
"""Each has a row of `usage_hours` for every hour and model that it used."""
_ROUNDS = 100
"""How often one call looks for more events."""

log = structlog.get_logger()


class RecallCreate(BaseModel):
    """The version whose predictions to credit back, and why."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    version: Name
    reason: Reason


class RecallRead(BaseModel):
    """A standing rule: events of the version that arrive later are taken back, too."""

    id: str
    model: str
    version: str
    reason: str
    created_at: datetime
    finished_at: datetime | None = Field(
        description="When all events that had arrived before were taken back; null until then."
    )


class RecallList(BaseModel):
    recalls: list[RecallRead]


class AlreadyRecalled(ServiceError):
    """The version is recalled already."""

    status = 409
    code = "already_recalled"
    detail = "The version is recalled already."


async def create(
    session: AsyncSession, *, recall: RecallCreate, by: str, now: datetime
) -> RecallRead:
    """Store a recall; the worker takes the events back.

    Raises:
        AlreadyRecalled: the version is recalled already.
    """
    await wait_for_batches(session, now=now)
    if await repository.find_recall(session, model=recall.model, version=recall.version):
        raise AlreadyRecalled()
    stored = Recall(
        id=str(uuid4()),
        model=recall.model,
        version=recall.version,
        reason=recall.reason,
        by=by,
        created_at=now,
        reached="",
    )
    session.add(stored)
    await session.flush()
    return RecallRead.model_validate(stored, from_attributes=True)


async def list_recalls(session: AsyncSession) -> RecallList:
    """Return every recall, newest first."""
    found = await repository.list_recalls(session)
    return RecallList(recalls=[RecallRead.model_validate(r, from_attributes=True) for r in found])


async def note_arrivals(session: AsyncSession, *, accepted: Iterable[Rated]) -> None:
    """List those of a batch's accepted events that are recalled; the open month is locked."""
    events = list(accepted)
    versions = {rated.arrival.event.data.version for rated in events}
    recalled = await repository.find_recalled(session, versions=versions) if versions else {}
    if recalled:
        await repository.add_arrivals(
            session,
            rows=[
                {
                    "time": rated.arrival.time,
                    "id": rated.arrival.event.id,
                    "source": rated.arrival.event.source,
                    "account": rated.arrival.event.subject,
                    "recall_id": recalled[key],
                }
                for rated in events
                if (key := (rated.arrival.event.data.model, rated.arrival.event.data.version))
                in recalled
            ],
        )


async def apply_forever(
    database: Database, archives: Archives, *, every_s: float = APPLY_EVERY_S
) -> None:
    """Take recalled events back until cancelled; after a failure, try again."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await apply(database, archives, now=datetime.now(UTC))
        except Exception as error:  # the next round tries again
            log.warning("recall_failed", error=type(error).__name__)


async def apply(database: Database, archives: Archives = NO_ARCHIVES, *, now: datetime) -> None:
    """Take back every recalled event that has arrived, except where that fails."""
    failed: set[tuple[str, str]] = set()
    for _ in range(_ROUNDS):
        async with database.snapshot() as session:
            unfinished = await repository.list_unfinished(session)
        for recall in unfinished:
            await _list_accounts(database, recall, now=now)
        earlier = await _take_back_earlier(database, archives, failed=failed, now=now)
        later = await _take_back_arrivals(database, failed=failed, now=now)
        if not earlier and not later:
            return


async def _list_accounts(database: Database, recall: Recall, *, now: datetime) -> None:
    """List the accounts that may have events of a recall; mark the recall if all are done."""
    is_last = False
    while not is_last:
        is_last = await in_transaction(
            database, lambda session: _list_some_accounts(session, recall, now=now)
        )


async def _list_some_accounts(session: AsyncSession, recall: Recall, *, now: datetime) -> bool:
    """List some more accounts; return whether there are no more."""
    stored = await session.get_one(Recall, recall.id, with_for_update=True)
    if stored.finished_at is not None:
        return True
    accounts = await repository.list_accounts(
        session, after=stored.reached, limit=_ACCOUNTS_AT_ONCE
    )
    if accounts:
        users = await repository.find_users(session, accounts=accounts, model=recall.model)
        await repository.add_recall_accounts(session, recall_id=recall.id, accounts=users)
        stored.reached = accounts[-1]
    if len(accounts) == _ACCOUNTS_AT_ONCE:
        return False
    if not await repository.has_recall_accounts(session, recall_id=recall.id):
        stored.finished_at = now
    return True


async def _take_back_earlier(
    database: Database, archives: Archives, *, failed: set[tuple[str, str]], now: datetime
) -> bool:
    """Take back some events of every listed account; return whether there may be more."""
    key, is_last, found = ("", ""), False, False
    while not is_last:
        async with database.snapshot() as session:
            listed = await repository.list_recall_accounts(
                session, after=key, limit=_ACCOUNTS_AT_ONCE
            )
        is_last = len(listed) < _ACCOUNTS_AT_ONCE
        for each in listed:
            key = (each.recall_id, each.account)
            if key not in failed:
                found = True
                await _or_fail(
                    _take_back_some(database, archives, each, now=now), key=key, failed=failed
                )
    return found


async def _take_back_arrivals(
    database: Database, *, failed: set[tuple[str, str]], now: datetime
) -> bool:
    """Take back some arrivals of every account that has them; return whether there may be more."""
    key, is_last, found = ("", ""), False, False
    while not is_last:
        async with database.snapshot() as session:
            arrivals = await repository.list_arrivals(session, after=key, limit=_ACCOUNTS_AT_ONCE)
        is_last = len(arrivals) < _ACCOUNTS_AT_ONCE
        for key in arrivals:
            if key not in failed:
                found = True
                await _or_fail(_take_back_arrived(database, *key, now=now), key=key, failed=failed)
    return found


async def _or_fail(
    work: Awaitable[None], *, key: tuple[str, str], failed: set[tuple[str, str]]
) -> None:
    """Do the work of a recall and account; one that fails is left for the next call."""
    try:
        await work
    except Exception as error:  # one account must not block the others
        failed.add(key)
        recall_id, account = key
        log.error("recall_failed", recall=recall_id, account=account, error=type(error).__name__)


async def _take_back_some(
    database: Database, archives: Archives, listed: RecallAccount, *, now: datetime
) -> None:
    """Take back some of an account's earlier events, and store how far that is."""
    after = None if listed.time is None else EventPlace(listed.time, listed.id, listed.source)
    recall = await _get_recall(database, listed.recall_id)
    window = Window(listed.account, model=recall.model, version=recall.version)
    for _ in range(_STEPS_AT_ONCE):
        events, after = await list_next_anywhere(
            database, archives, window, after=after, limit=EVENTS_AT_ONCE
        )
        is_more = await in_transaction(
            database,
            lambda session, events=events, after=after: _advance(  # type: ignore[misc]
                session, recall, account=listed.account, events=events, reached=after, now=now
            ),
        )
        if not is_more:
            return


async def _advance(
    session: AsyncSession,
    recall: Recall,
    *,
    account: str,
    events: Sequence[Charged],
    reached: EventPlace | None,
    now: datetime,
) -> bool:
    """Take events back and store how far that is; return whether there are more."""
    await _reverse_new(session, recall, account=account, events=events, now=now)
    key = (recall.id, account)
    listed = await session.get(RecallAccount, key, with_for_update=True)
    if listed is None:  # another worker was faster
        return False
    if reached is None:
        await session.delete(listed)
        return False
    if listed.time is None or EventPlace(listed.time, listed.id, listed.source) < reached:
        listed.time, listed.id, listed.source = reached
    return True


async def _take_back_arrived(
    database: Database, recall_id: str, account: str, *, now: datetime
) -> None:
    """Take back some of an account's events that arrived after the recall."""
    recall = await _get_recall(database, recall_id)
    for _ in range(_STEPS_AT_ONCE):
        async with database.snapshot() as session:
            events = await list_arrived(
                session, account=account, recall_id=recall_id, limit=EVENTS_AT_ONCE
            )
        await in_transaction(
            database,
            lambda session, events=events: _reverse_arrived(  # type: ignore[misc]
                session, recall, account=account, events=events, now=now
            ),
        )
        if len(events) < EVENTS_AT_ONCE:
            return


async def _reverse_arrived(
    session: AsyncSession,
    recall: Recall,
    *,
    account: str,
    events: Sequence[Charged],
    now: datetime,
) -> None:
    await _reverse_new(session, recall, account=account, events=events, now=now)
    await repository.delete_arrivals(session, account=account, recall_id=recall.id)


async def _get_recall(database: Database, recall_id: str) -> Recall:
    async with database.snapshot() as session:
        return await session.get_one(Recall, recall_id)


async def _reverse_new(
    session: AsyncSession,
    recall: Recall,
    *,
    account: str,
    events: Sequence[Charged],
    now: datetime,
) -> None:
    """Take back those of an account's events that were not taken back before.

    The account is locked first, so that no other worker takes the same events back.
    """
    if not events:
        return
    await lock_money(session, accounts=[account], journals=())
    before = await find_reversed(session, events)
    await reverse(
        session,
        [event for event in events if event.place not in before],
        account=account,
        kind="recall",
        cause=recall.id,
        reason=f"Recall of {recall.model} {recall.version}: {recall.reason}",
        now=now,
    )
