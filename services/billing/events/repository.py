"""All SQL about single events: their identities, their receipts, their conflicts."""

from collections.abc import Collection, Sequence, Set
from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import wide
from services.billing.database import insert_rows, table_of, upsert
from services.billing.events.batch import Arrival, EventId
from services.billing.events.rating import Rated
from services.billing.models import EventConflict, EventKey, Receipt


async def find_fingerprints(
    session: AsyncSession, *, keys: Collection[EventId]
) -> dict[EventId, str]:
    """The fingerprints of the events taken before, among these.

    Found by id alone, where the key begins; one of another source with the same id does no harm.
    """
    if not keys:
        return {}
    rows = await session.execute(
        select(EventKey.id, EventKey.source, EventKey.fingerprint).where(
            EventKey.id.in_(sorted({key.id for key in keys}))
        )
    )
    return {EventId(event_id, source): fingerprint for event_id, source, fingerprint in rows}


async def add_events(
    session: AsyncSession, *, events: Sequence[Rated], late: Set[int], now: datetime
) -> None:
    """Store new events: first their identities, in order, then their receipts.

    Plain inserts: the identity's key finds the events that were stored before, or meanwhile by
    another transaction, and then this one must start over.

    Args:
        late: which came after their process's slice had been given up, by index.

    Raises:
        IntegrityError: not all of them are new.
    """
    if not events:
        return
    in_order = sorted(events, key=lambda rated: rated.arrival.key)
    await insert_rows(
        session, insert(table_of(EventKey)), [_key_row(rated.arrival) for rated in in_order]
    )
    by_time = sorted(events, key=lambda rated: (rated.arrival.time, rated.arrival.key))
    await insert_rows(
        session, insert(table_of(Receipt)), [_receipt_row(rated, late, now) for rated in by_time]
    )


async def add_conflicts(
    session: AsyncSession, *, conflicts: Sequence[Arrival], now: datetime
) -> None:
    """Keep repeats with another payload for whoever looks into them, each payload once."""
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


def _key_row(arrival: Arrival) -> dict[str, object]:
    return {
        "id": arrival.key.id,
        "source": arrival.key.source,
        "fingerprint": arrival.fingerprint,
        "time": arrival.time,
    }


def _receipt_row(rated: Rated, late: Set[int], now: datetime) -> dict[str, object]:
    arrival, event, month = rated.arrival, rated.arrival.event, rated.offer.month
    return {
        "time": arrival.time,
        "id": event.id,
        "source": event.source,
        "account": event.subject,
        "model": event.data.model,
        "version": event.data.version,
        "rows": event.data.rows,
        "client_id": event.data.client_id,
        "price_id": month.price_id,
        **wide.columns("amount", rated.amount),
        "period": month.period,
        "late": rated.offer.late or arrival.index in late,
        "journal": event.journal or event.source,
        "sequence": event.sequence,
        "received_at": now,
    }
