"""SQL about corrections: what was taken back, recalls and credit notes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, exists, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts
from services.billing.bulk_insert import insert_rows, table_of, upsert
from services.billing.corrections.models import (
    CreditNote,
    EventReversal,
    Recall,
    RecallAccount,
    RecalledArrival,
)
from services.billing.models import Account, Plan, Price, UsageHour


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


async def list_accounts(session: AsyncSession, *, after: str, limit: int) -> list[str]:
    """Return accounts that have been charged or credited, in order, starting after one."""
    found = select(Account.id).where(Account.id > after).order_by(Account.id).limit(limit)
    return list(await session.scalars(found))


async def find_users(
    session: AsyncSession, *, accounts: Collection[str], model: str
) -> Sequence[str]:
    """Return those of some accounts that have used a model."""
    found = select(UsageHour.account).where(
        UsageHour.account.in_(sorted(accounts)), UsageHour.model == model
    )
    return (await session.scalars(found.distinct())).all()


async def add_recall_accounts(
    session: AsyncSession, *, recall_id: str, accounts: Collection[str]
) -> None:
    """Insert that a recall has yet to take back events of some accounts."""
    rows = [{"recall_id": recall_id, "account": account} for account in accounts]
    await upsert(session, RecallAccount, rows)


async def list_recall_accounts(
    session: AsyncSession, *, after: tuple[str, str], limit: int
) -> Sequence[RecallAccount]:
    """Return what recalls have yet to take back, in order, starting after a recall and account."""
    key = (RecallAccount.recall_id, RecallAccount.account)
    found = select(RecallAccount).where(tuple_(*key) > after).order_by(*key).limit(limit)
    return (await session.scalars(found)).all()


async def has_recall_accounts(session: AsyncSession, *, recall_id: str) -> bool:
    """Return whether a recall has yet to take back events."""
    found = select(RecallAccount.account).where(RecallAccount.recall_id == recall_id).limit(1)
    return await session.scalar(found) is not None


async def add_arrivals(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert events of recalled versions that have just arrived."""
    await upsert(session, RecalledArrival, rows)


async def list_arrivals(
    session: AsyncSession, *, after: tuple[str, str], limit: int
) -> list[tuple[str, str]]:
    """Return the recall and account of events that have arrived and are not taken back.

    They are in order, starting after a recall and account.
    """
    key = (RecalledArrival.recall_id, RecalledArrival.account)
    found = select(*key).distinct().where(tuple_(*key) > after).order_by(*key).limit(limit)
    return [(recall_id, account) for recall_id, account in await session.execute(found)]


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
