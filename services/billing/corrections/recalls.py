"""Recalls: standing rules that take back every event answered by a version of a model.

A recall is stored under the lock that closing a month takes: batches that did not see it are done
by then. The worker takes their events back, account by account. Later batches see the recall and
list their events of it as arrivals, which the worker takes back, too. Any replica may do it, and it
may be killed at any moment.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

import structlog
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.corrections import repository
from services.billing.corrections.models import Recall
from services.billing.corrections.reversing import reverse
from services.billing.events.rating import Rated
from services.billing.ledger.accounts import lock_money
from services.billing.models import REASON_CHARS
from services.billing.periods import wait_for_batches
from services.common.contracts import Name
from services.common.db.database import Database
from services.common.db.retrying import in_transaction
from services.common.errors import ServiceError

APPLY_EVERY_S = 2.0
"""How often recalled events are taken back."""
EVENTS_AT_ONCE = 1000
"""Events that one transaction takes back."""
_ACCOUNTS_AT_ONCE = 100
_ROUNDS = 100
"""How often one call looks for more arrivals."""

log = structlog.get_logger()


class RecallCreate(BaseModel):
    """The version whose answers are not to be paid, and why."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    version: Name
    reason: Annotated[str, Field(strict=True, min_length=1, max_length=REASON_CHARS)]


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


async def apply_forever(database: Database, *, every_s: float = APPLY_EVERY_S) -> None:
    """Take recalled events back until cancelled; after a failure, try again."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await apply(database, now=datetime.now(UTC))
        except Exception as error:  # the next round tries again
            log.warning("recall_failed", error=type(error).__name__)


async def apply(database: Database, *, now: datetime) -> None:
    """Take back every recalled event that has arrived."""
    async with database.snapshot() as session:
        recalls = await repository.list_unfinished(session)
    for recall in recalls:
        await _apply_earlier(database, recall, now=now)
    for _ in range(_ROUNDS):
        async with database.snapshot() as session:
            arrivals = await repository.list_arrivals(session, limit=_ACCOUNTS_AT_ONCE)
        if not arrivals:
            return
        for account, recall_id in arrivals:
            async with database.snapshot() as session:
                recall = await session.get_one(Recall, recall_id)
            await _reverse_all(database, recall, account=account, arrivals=True, now=now)


async def _apply_earlier(database: Database, recall: Recall, *, now: datetime) -> None:
    """Take back what had arrived before a recall, from where an earlier round was stopped."""
    reached = recall.reached
    while True:
        async with database.snapshot() as session:
            accounts = await repository.list_accounts(
                session,
                model=recall.model,
                after=reached,
                limit=_ACCOUNTS_AT_ONCE,
            )
        for account in accounts:
            await _reverse_all(database, recall, account=account, arrivals=False, now=now)
        is_last = len(accounts) < _ACCOUNTS_AT_ONCE
        reached = accounts[-1] if accounts else reached
        async with database.transaction() as session:
            stored = await session.get_one(Recall, recall.id, with_for_update=True)
            stored.reached = max(stored.reached, reached)
            stored.finished_at = now if is_last else None
        if is_last:
            return


async def _reverse_all(
    database: Database, recall: Recall, *, account: str, arrivals: bool, now: datetime
) -> None:
    """Take back an account's events of a recall, some at a time."""
    count = EVENTS_AT_ONCE
    while count == EVENTS_AT_ONCE:
        count = await in_transaction(
            database,
            lambda session: _reverse_some(
                session, recall, account=account, arrivals=arrivals, now=now
            ),
        )


async def _reverse_some(
    session: AsyncSession, recall: Recall, *, account: str, arrivals: bool, now: datetime
) -> int:
    # The account is locked first, so that no other worker takes the same events back.
    await lock_money(session, accounts=[account], journals=())
    events = await repository.list_reversible(
        session,
        account=account,
        recall=recall,
        arrivals=arrivals,
        limit=EVENTS_AT_ONCE,
    )
    await reverse(
        session,
        events,
        account=account,
        kind="recall",
        cause=recall.id,
        reason=f"Recall of {recall.model} {recall.version}: {recall.reason}",
        now=now,
    )
    await repository.delete_arrivals(session, account=account, recall_id=recall.id)
    return len(events)
