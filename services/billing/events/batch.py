"""A delivery of CloudEvents, read: the events that hold, those that do not, and their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from services.billing.periods import period_of
from services.billing.sources.ranges import Range, has_arrived
from services.common.contracts import (
    AccountId,
    Name,
    Position,
    RejectedEvent,
    Rows,
    UsageEvent,
)

MAX_AHEAD = timedelta(minutes=5)
"""How far in the future an event may lie: clocks differ."""

_MAX_ID_CHARS = 64
_MAX_SOURCE_CHARS = 128
_PRINTABLE = frozenset(map(chr, range(0x21, 0x7F)))


class EventId(NamedTuple):
    """What makes an event the same event, compared byte for byte."""

    id: str
    source: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A usage event that holds, and what follows from it alone."""

    index: int
    event: UsageEvent
    key: EventId
    fingerprint: str
    """Of what a repeat must not change."""
    time: datetime
    period: str


class Spend(NamedTuple):
    """What a process spent when it answered a request, whatever became of the event."""

    account: str
    journal: str | None
    sequence: int | None
    price_id: str
    rows: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One delivery."""

    arrivals: list[Arrival] = field(default_factory=list)
    rejected: list[RejectedEvent] = field(default_factory=list)
    spent: dict[int, Spend] = field(default_factory=dict)
    """What the rejected events say was spent, by index, as far as they can be read."""
    numbers: dict[str, set[int]] = field(default_factory=dict)
    """The sequences seen, by journal, of rejected events too."""


def read_batch(items: Sequence[Any], *, now: datetime) -> Batch:
    """Look at each event of a delivery by itself; one bad event spoils no other."""
    batch = Batch()
    for index, item in enumerate(items):
        try:
            event = UsageEvent.model_validate(item)
            if event.time > now + MAX_AHEAD:
                raise _InTheFuture
        except (ValidationError, _InTheFuture) as error:
            batch.rejected.append(
                RejectedEvent(index=index, id=_shown_id(item), reason=_reason(error))
            )
            _note(batch, *_position(item))
            if spend := _spend(item):
                batch.spent[index] = spend
        else:
            batch.arrivals.append(_arrival(index, event))
            _note(batch, event.journal or event.source, event.sequence)
    return batch


def is_likely_repeat(arrival: Arrival, *, arrived_before: Mapping[str, Sequence[Range]]) -> bool:
    """Whether an event may well have been taken before.

    It was if its journal delivers it again. One under a caller's key, whose id is a UUIDv8, comes
    again at another number; other ids are made once.

    Args:
        arrived_before: the numbers that arrived before this batch, by journal.
    """
    event = arrival.event
    if event.journal is None or event.sequence is None or event.id[14:15] == "8":
        return True
    return has_arrived(event.sequence, arrived_before.get(event.journal, ()))


class _InTheFuture(Exception):
    pass


def _reason(error: ValidationError | _InTheFuture) -> str:
    """Why an event was turned away; pydantic's own words, which do not repeat the input."""
    if isinstance(error, _InTheFuture):
        return "time: more than 5 minutes in the future"
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "event"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _arrival(index: int, event: UsageEvent) -> Arrival:
    time = event.time.astimezone(UTC)
    payload = f"{event.subject}\0{event.data.model}\0{event.data.rows}"
    return Arrival(
        index=index,
        event=event,
        key=EventId(event.id, event.source),
        fingerprint=blake2b(payload.encode(), digest_size=16).hexdigest(),
        time=time,
        period=period_of(time),
    )


def _shown_id(item: Any) -> str | None:
    """A rejected event's id, cut down to what is safe to show."""
    given = item.get("id") if isinstance(item, dict) else None
    if not isinstance(given, str):
        return None
    return "".join(char for char in given if char in _PRINTABLE)[:_MAX_ID_CHARS]


def _position(item: Any) -> tuple[str | None, int | None]:
    """Journal and sequence of a rejected event, as far as they can be read."""
    try:
        position = Position.model_validate(item)
    except ValidationError:
        return None, None
    return position.journal or _source(item.get("source")), position.sequence


class _SpentOn(BaseModel):
    price_id: Name
    rows: Rows


class _Spent(Position):
    subject: AccountId
    data: _SpentOn


def _spend(item: Any) -> Spend | None:
    """What a rejected event says was spent of a slice, if it can be read."""
    try:
        spent = _Spent.model_validate(item)
    except ValidationError:
        return None
    if spent.journal is None or spent.sequence is None:
        return None
    return Spend(spent.subject, spent.journal, spent.sequence, spent.data.price_id, spent.data.rows)


def _source(given: Any) -> str | None:
    readable = isinstance(given, str) and 0 < len(given) <= _MAX_SOURCE_CHARS
    return given if readable and _PRINTABLE.issuperset(given) else None


def _note(batch: Batch, journal: str | None, sequence: int | None) -> None:
    if journal is not None and sequence is not None:
        batch.numbers.setdefault(journal, set()).add(sequence)
