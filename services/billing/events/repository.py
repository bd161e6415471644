"""All SQL about single events: their identities, rows and conflicts."""

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from datetime import datetime
from typing import NamedTuple

import orjson
from sqlalchemy import insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.bulk_insert import ColumnInsert, by_column, table_of, upsert
from services.billing.events.batch import Arrival, EventId
from services.billing.events.rating import Rated
from services.billing.invoices.models import LateEvent
from services.billing.models import EventConflict, EventKey, UsageEvent

_ADD_KEYS, _ADD_EVENTS = insert(table_of(EventKey)), insert(table_of(UsageEvent))
_ADD_LATE = insert(table_of(LateEvent))


class ConflictKey(NamedTuple):
    """What identifies a conflict: the event, and which other payload it had."""

    id: str
    source: str
    fingerprint: str


async def find_fingerprints(
    session: AsyncSession, *, keys: Collection[EventId]
) -> dict[EventId, str]:
    """Return the fingerprints of those events that were accepted before.

    They are found by id alone, the first part of the key; the same id from another source is
    harmless.
    """
    if not keys:
        return {}
    rows = await session.execute(
        select(EventKey.id, EventKey.source, EventKey.fingerprint).where(
            EventKey.id.in_(sorted({key.id for key in keys}))
        )
    )
    return {EventId(event_id, source): fingerprint for event_id, source, fingerprint in rows}


def event_inserts(
    events: Sequence[Rated],
    *,
    entries: Mapping[str, int | None],
    late: Set[int],
    now: datetime,
) -> Iterator[ColumnInsert]:
    """Yield the INSERTs of new events: first their identities, in order, then their rows.

    Plain ones, because the identity's key detects events that were stored before, perhaps just now
    by another transaction: an `IntegrityError`. Then this one must start over.

    Args:
        entries: the ledger entry that the events are part of, by currency.
        late: the indexes of events that arrived after their process's credit was reclaimed.
    """
    if not events:
        return
    by_key = sorted(events, key=lambda rated: rated.arrival.key)
    yield _ADD_KEYS, _key_columns(by_key)
    by_time = sorted(by_key, key=lambda rated: rated.arrival.time)
    yield _ADD_EVENTS, _event_columns(by_time, entries, late, now)
    if moved := [_late_row(rated) for rated in by_time if rated.offer.late]:
        yield _ADD_LATE, by_column(moved)


async def add_conflicts(
    session: AsyncSession, *, conflicts: Sequence[Arrival], now: datetime
) -> None:
    """Store repeats with another payload for investigation, each payload once."""
    await upsert(
        session,
        EventConflict,
        [
            {
                "id": conflict.key.id,
                "source": conflict.key.source,
                "fingerprint": conflict.fingerprint,
                "account": conflict.event.subject,
                "model": conflict.event.data.model,
                "rows": conflict.event.data.rows,
                "received_at": now,
            }
            for conflict in conflicts
        ],
    )


async def list_conflicts(
    session: AsyncSession, *, after: ConflictKey | None, limit: int
) -> Sequence[EventConflict]:
    """Return conflicts in the order of their keys, from the one that follows `after`."""
    key = EventConflict.id, EventConflict.source, EventConflict.fingerprint
    found = select(EventConflict).order_by(*key).limit(limit)
    if after is not None:
        found = found.where(tuple_(*key) > after)
    return (await session.scalars(found)).all()


def _key_columns(events: Sequence[Rated]) -> dict[str, Sequence[object]]:
    arrivals = [rated.arrival for rated in events]
    return {
        "id": [arrival.key.id for arrival in arrivals],
        "source": [arrival.key.source for arrival in arrivals],
        "fingerprint": [arrival.fingerprint for arrival in arrivals],
        "time": [arrival.time for arrival in arrivals],
    }


def _late_row(rated: Rated) -> dict[str, object]:
    event, month = rated.arrival.event, rated.offer.month
    return {
        "period": month.period,
        "account": month.account,
        "time": rated.arrival.time,
        "id": event.id,
        "source": event.source,
    }


def _event_columns(
    events: Sequence[Rated], entries: Mapping[str, int | None], late: Set[int], now: datetime
) -> dict[str, Sequence[object]]:
    arrivals, offers, charged = zip(*events, strict=True)
    envelopes = [arrival.event for arrival in arrivals]
    data = [envelope.data for envelope in envelopes]
    high, low = zip(*map(amounts.split, charged), strict=True)
    return {
        "time": [arrival.time for arrival in arrivals],
        "id": [envelope.id for envelope in envelopes],
        "source": [envelope.source for envelope in envelopes],
        "account": [envelope.subject for envelope in envelopes],
        "model": [each.model for each in data],
        "version": [each.version for each in data],
        "rows": [each.rows for each in data],
        "client_id": [each.client_id for each in data],
        "api_key": [each.api_key for each in data],
        "tags": [_tags_text(each.tags) for each in data],
        "input_sha256": [each.input_sha256 for each in data],
        "price_id": [offer.month.price_id for offer in offers],
        "amount_high": high,
        "amount": low,
        "period": [offer.month.period for offer in offers],
        "late": [rated.offer.late or rated.arrival.index in late for rated in events],
        "journal": [envelope.journal or envelope.source for envelope in envelopes],
        "sequence": [envelope.sequence for envelope in envelopes],
        "received_at": [now] * len(events),
        "entry_id": [entries.get(offer.currency) for offer in offers],
    }


def _tags_text(tags: Mapping[str, str] | None) -> str | None:
    """Return tags as text that is the same for the same tags; None without any."""
    return orjson.dumps(tags, option=orjson.OPT_SORT_KEYS).decode() if tags else None
