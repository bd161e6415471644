"""All SQL about corrections."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import Select, and_, delete, exists, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.bulk_insert import insert_rows, table_of, upsert
from services.billing.corrections.models import CreditNote, EventReversal, Recall, RecalledArrival
from services.billing.models import EventKey, Plan, Price, UsageEvent, UsageHour


class Charged(NamedTuple):
    """A usage event that can be taken back."""

    time: datetime
    id: str
    source: str
    period: str
    model: str
    price_id: str
    is_prepaid: bool
    currency: str
    amount: int


async def list_reversible(
    session: AsyncSession,
    *,
    account: str,
    recall: Recall,
    arrivals: bool,
    limit: int,
) -> list[Charged]:
    """Return an account's events of a recalled version that were not taken back yet.

    Args:
        arrivals: return only those that arrived after the recall.
    """
    found = _charged().where(
        UsageEvent.account == account,
        UsageEvent.model == recall.model,
        UsageEvent.version == recall.version,
        EventReversal.id.is_(None),
    )
    if arrivals:
        found = found.join(RecalledArrival, _same_event(RecalledArrival))
    return [event for event, _ in await _events(session, found, limit=limit)]


async def list_owners(session: AsyncSession, *, ids: Collection[str]) -> list[str]:
    """Return the accounts of events, by the events' ids, in order."""
    found = await session.scalars(
        select(UsageEvent.account)
        .distinct()
        .join(EventKey, _same_event(EventKey))
        .where(EventKey.id.in_(sorted(ids)))
        .order_by(UsageEvent.account)
    )
    return list(found)


async def list_events(
    session: AsyncSession,
    *,
    account: str,
    ids: Collection[str] | None,
    model: str | None,
    version: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> list[tuple[Charged, bool]]:
    """Return an account's events that match, each with whether it was taken back."""
    found = _charged().where(UsageEvent.account == account)
    if ids is not None:
        found = found.join(EventKey, _same_event(EventKey)).where(EventKey.id.in_(sorted(ids)))
    if model is not None:
        found = found.where(UsageEvent.model == model)
    if version is not None:
        found = found.where(UsageEvent.version == version)
    if since is not None:
        found = found.where(UsageEvent.time >= since)
    if until is not None:
        found = found.where(UsageEvent.time < until)
    return await _events(session, found, limit=limit)


def _charged() -> Select[Any]:
    charged: Any = (
        select(
            UsageEvent.time,
            UsageEvent.id,
            UsageEvent.source,
            UsageEvent.period,
            UsageEvent.model,
            UsageEvent.price_id,
            Plan.billing,
            Plan.currency,
            UsageEvent.amount_high,
            UsageEvent.amount_low,
            EventReversal.id,
        )
        .join(Price, Price.id == UsageEvent.price_id)
        .join(Plan, Plan.id == Price.plan_id)
        .outerjoin(EventReversal, _same_event(EventReversal))
    )
    return cast(Select[Any], charged)


async def _events(
    session: AsyncSession, found: Select[Any], *, limit: int
) -> list[tuple[Charged, bool]]:
    in_order = found.order_by(UsageEvent.time, UsageEvent.id, UsageEvent.source).limit(limit)
    rows: Sequence[Any] = (await session.execute(in_order)).all()
    return [
        (
            Charged._make((*event, billing == "prepaid", currency, amounts.join(high, low))),
            reversal is not None,
        )
        for *event, billing, currency, high, low, reversal in rows
    ]


def _same_event(table: type[EventReversal | RecalledArrival | EventKey]) -> Any:
    return and_(
        table.time == UsageEvent.time,
        table.id == UsageEvent.id,
        table.source == UsageEvent.source,
    )


async def add_reversals(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert that events were taken back; `amount` is an integer of any size."""
    stored = [{**row, **amounts.columns("amount", row["amount"])} for row in rows]
    await insert_rows(session, insert(table_of(EventReversal)), stored)


# -- recalls -------------------------------------------------------------------------------------


async def find_recall(session: AsyncSession, *, model: str, version: str) -> Recall | None:
    """Return the recall of a version."""
    found = select(Recall).where(Recall.model == model, Recall.version == version)
    recall: Recall | None = await session.scalar(found)
    return recall


async def find_recalled(
    session: AsyncSession, *, versions: Collection[str]
) -> dict[tuple[str, str], str]:
    """Return the ids of recalls, by model and version."""
    found = await session.execute(
        select(Recall.model, Recall.version, Recall.id).where(Recall.version.in_(sorted(versions)))
    )
    return {(model, version): recall_id for model, version, recall_id in found}


async def list_recalls(session: AsyncSession) -> Sequence[Recall]:
    """Return every recall, newest first."""
    return (await session.scalars(select(Recall).order_by(Recall.created_at.desc()))).all()


async def list_unfinished(session: AsyncSession) -> Sequence[Recall]:
    """Return the recalls whose earlier events are not all taken back, oldest first."""
    found = select(Recall).where(Recall.finished_at.is_(None))
    return (await session.scalars(found.order_by(Recall.created_at, Recall.id))).all()


async def list_accounts(session: AsyncSession, *, model: str, after: str, limit: int) -> list[str]:
    """Return accounts that used a model, in order, starting after one."""
    found = (
        select(UsageHour.account)
        .distinct()
        .where(UsageHour.account > after, UsageHour.model == model)
        .order_by(UsageHour.account)
        .limit(limit)
    )
    return list(await session.scalars(found))


async def add_arrivals(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert events of recalled versions that have just arrived."""
    await upsert(session, RecalledArrival, rows)


async def list_arrivals(session: AsyncSession, *, limit: int) -> list[tuple[str, str]]:
    """Return the account and recall of events that have arrived and are not taken back."""
    found = await session.execute(
        select(RecalledArrival.account, RecalledArrival.recall_id).distinct().limit(limit)
    )
    return [(account, recall_id) for account, recall_id in found]


async def delete_arrivals(session: AsyncSession, *, account: str, recall_id: str) -> None:
    """Forget an account's arrivals that have been taken back."""
    arrival = RecalledArrival
    done = exists().where(
        EventReversal.time == arrival.time,
        EventReversal.id == arrival.id,
        EventReversal.source == arrival.source,
    )
    await session.execute(
        delete(arrival)
        .where(arrival.account == account, arrival.recall_id == recall_id, done)
        .execution_options(synchronize_session=False)
    )


# -- credit notes --------------------------------------------------------------------------------


async def list_notes(session: AsyncSession, *, invoice_id: str) -> Sequence[CreditNote]:
    """Return the credit notes of an invoice, oldest first."""
    found = select(CreditNote).where(CreditNote.invoice_id == invoice_id)
    return (await session.scalars(found.order_by(CreditNote.series, CreditNote.sequence))).all()


async def add_note(session: AsyncSession, *, row: Mapping[str, Any]) -> None:
    """Insert a credit note."""
    await session.execute(insert(table_of(CreditNote)).values(row))


async def find_prepaid(session: AsyncSession, *, price_ids: Collection[str]) -> set[str]:
    """Return those of some prices that are paid from the balance."""
    found = await session.scalars(
        select(Price.id)
        .join(Plan, Plan.id == Price.plan_id)
        .where(Price.id.in_(sorted(price_ids)), Plan.billing == "prepaid")
    )
    return set(found)
