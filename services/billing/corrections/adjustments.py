"""Adjustments: an administrator takes back named events, or all that match a filter.

Prepaid charges return to the balance. Postpaid charges of a month that is not invoiced reduce its
invoice; those of an invoiced month are given back by a credit note, or reduce the next invoice if
it owes nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.archives.reading import NO_ARCHIVES, Archives
from services.billing.corrections.models import Adjustment
from services.billing.corrections.reversing import NoteSeries, reverse
from services.billing.corrections.selecting import (
    Charged,
    Window,
    find_reversed,
    list_named,
    list_next_anywhere,
)
from services.billing.event_places import EventPlace
from services.billing.fields import Reason
from services.billing.invoices.issuing import Books
from services.billing.ledger.accounts import lock_money
from services.common.contracts import AccountId, Name, format_amount
from services.common.db.database import Database
from services.common.errors import BodyInvalid, ServiceError
from services.common.times import Instant

MAX_EVENTS = 10_000
"""Events that one adjustment takes back, in one transaction."""

EventName = Annotated[
    str, Field(strict=True, min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")
]


class EventFilter(BaseModel):
    """Events that match all of these; times are half-open."""

    model_config = ConfigDict(extra="forbid")

    account: AccountId
    model: Name | None = None
    version: Name | None = None
    since: Instant | None = Field(default=None, alias="from")
    until: Instant | None = Field(default=None, alias="to")


class AdjustmentCreate(BaseModel):
    """The events to take back: by their ids, or by a filter."""

    model_config = ConfigDict(extra="forbid")

    events: Annotated[list[EventName], Field(min_length=1, max_length=MAX_EVENTS)] | None = None
    filter: EventFilter | None = None
    reason: Reason

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.events is None) == (self.filter is None):
            raise ValueError("give events or a filter")
        return self


class AdjustmentRead(BaseModel):
    id: str
    events: int = Field(description="How many events were taken back.")
    skipped: int = Field(description="How many had been taken back before.")
    amount: str = Field(description="What they had cost, without tax.")


class NothingToAdjust(ServiceError):
    """No event is left to take back."""

    status = 409
    code = "nothing_to_adjust"
    detail = "No event is left to take back."


async def select_events(
    database: Database, adjustment: AdjustmentCreate, archives: Archives = NO_ARCHIVES
) -> list[Charged]:
    """Return the events that an adjustment names, whether or not they were taken back before.

    Raises:
        BodyInvalid: the filter matches too many events.
    """
    given = adjustment.filter
    if given is None:
        return await list_named(database, archives, ids=adjustment.events or ())
    window = Window(given.account, given.model, given.version, given.since, given.until)
    events: list[Charged] = []
    reached: EventPlace | None = None
    is_first = True
    while is_first or reached is not None:
        is_first = False
        more, reached = await list_next_anywhere(
            database, archives, window, after=reached, limit=MAX_EVENTS + 1 - len(events)
        )
        events += more
        if len(events) > MAX_EVENTS:
            raise BodyInvalid(
                [{"loc": ["body", "filter"], "msg": f"Matches more than {MAX_EVENTS} events."}]
            )
    return events


async def create(
    session: AsyncSession,
    *,
    adjustment: AdjustmentCreate,
    events: Sequence[Charged],
    by: str,
    books: Books,
    now: datetime,
) -> AdjustmentRead:
    """Take events back.

    Locks are taken in one order: accounts, then the numbers of credit notes.

    Args:
        events: what `select_events` returned.

    Raises:
        NothingToAdjust: there is no such event that was not taken back before.
        BodyInvalid: the events differ in currency.
    """
    await lock_money(session, accounts={event.account for event in events}, journals=())
    before = await find_reversed(session, events)
    chosen: dict[str, list[Charged]] = {}
    for event in events:
        if event.place not in before:
            chosen.setdefault(event.account, []).append(event)
    if not chosen:
        raise NothingToAdjust()
    if len({event.currency for events in chosen.values() for event in events}) > 1:
        raise BodyInvalid([{"loc": ["body", "events"], "msg": "Must all be in the same currency."}])
    stored = Adjustment(id=str(uuid4()), reason=adjustment.reason, by=by, created_at=now)
    session.add(stored)
    total = 0
    for account, taken in sorted(chosen.items()):
        total += await reverse(
            session,
            taken,
            account=account,
            kind="adjustment",
            cause=stored.id,
            reason=f"Adjustment: {stored.reason}",
            now=stored.created_at,
            notes=NoteSeries(books.series("credit_note"), by=by, reason=stored.reason),
        )
    count = sum(map(len, chosen.values()))
    return AdjustmentRead(
        id=stored.id,
        events=count,
        skipped=len(events) - count,
        amount=format_amount(total),
    )
