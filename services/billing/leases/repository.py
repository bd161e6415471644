"""All SQL about slices. Whoever changes one holds its account's row."""

from collections.abc import Collection, Iterable
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, case, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import models
from services.billing.database import upsert
from services.billing.leases.slices import Slice
from services.billing.models import Account, Journal

SliceKey = tuple[str, str]
"""Account and journal."""

_FIELDS = [field.name for field in fields(Slice)]
_COLUMNS = [getattr(models.Slice, name) for name in _FIELDS]
_values = attrgetter(*_FIELDS)
_ASKED = ["spent", "ask_no", "demand"]
_MONEY = ["granted", "settled", "returned"]


class Crowd(NamedTuple):
    """What all processes together hold of an account and ask for."""

    unspent: int = 0
    demand: float = 0.0
    """Σ (demand + 1) over those that asked lately."""


async def find_slices(
    session: AsyncSession, *, accounts: Collection[str], journals: Collection[str]
) -> dict[SliceKey, Slice]:
    """The slices that journals have of accounts."""
    return await _find(
        session,
        select(*_COLUMNS).where(
            models.Slice.account.in_(sorted(accounts)), models.Slice.journal.in_(sorted(journals))
        ),
    )


async def lock_slices(
    session: AsyncSession, *, accounts: Collection[str], journals: Collection[str]
) -> tuple[dict[str, int], dict[SliceKey, Slice]]:
    """Hold accounts until the transaction ends: what they have available, and journals' slices.

    One statement, because with a thousand accounts each row that is read counts. The slices of
    unknown accounts, which hold no money, are found without being held.
    """
    account, *columns = _COLUMNS
    found = await session.execute(
        select(Account.id, Account.available, *columns)
        .outerjoin(
            models.Slice, and_(account == Account.id, models.Slice.journal.in_(sorted(journals)))
        )
        .where(Account.id.in_(sorted(accounts)))
        .order_by(Account.id)
        .with_for_update()
    )
    available: dict[str, int] = {}
    slices: dict[SliceKey, Slice] = {}
    for account_id, free, journal, *rest in found:
        available[account_id] = free
        if journal is not None:
            slices[account_id, journal] = Slice(account_id, journal, *rest)
    unknown = set(accounts) - available.keys()
    if unknown:
        slices |= await find_slices(session, accounts=unknown, journals=journals)
    return available, slices


async def find_ended(session: AsyncSession, *, journals: Collection[str]) -> set[str]:
    """Those of some journals whose slices have gone for good, or are about to.

    To be asked after `lock_slices`: a slice that was not found then has perhaps just been deleted,
    and a new one would not know what it had settled.
    """
    ended = or_(Journal.closed, Journal.purged)
    found = await session.scalars(select(Journal.id).where(Journal.id.in_(sorted(journals)), ended))
    return set(found)


async def list_slices(
    session: AsyncSession, *, journal: str, after: str, limit: int
) -> dict[SliceKey, Slice]:
    """A journal's slices in the order of their accounts, beginning after one."""
    return await _find(
        session,
        select(*_COLUMNS)
        .where(models.Slice.journal == journal, models.Slice.account > after)
        .order_by(models.Slice.account)
        .limit(limit),
    )


async def _find(session: AsyncSession, found: Select[Any]) -> dict[SliceKey, Slice]:
    slices = [Slice(*row) for row in await session.execute(found)]
    return {(held.account, held.journal): held for held in slices}


async def put_asks(
    session: AsyncSession, *, slices: Iterable[Slice], now: datetime, with_money: bool = True
) -> None:
    """Store slices that were asked for now.

    Args:
        with_money: False where the account is unknown, and so is not held: there is no money to
            grant, but another process may be entering some.
    """
    put = [*_ASKED, "asked_at", *(_MONEY if with_money else [])]
    await upsert(session, models.Slice, _rows(slices, now=now), put=put)


async def put_money(session: AsyncSession, *, slices: Iterable[Slice], now: datetime) -> None:
    """Store the money of slices that were found before."""
    await upsert(session, models.Slice, _rows(slices, now=now), put=_MONEY)


def _rows(slices: Iterable[Slice], *, now: datetime) -> list[dict[str, Any]]:
    return [dict(zip(_FIELDS, _values(held), strict=True), asked_at=now) for held in slices]


async def delete_slices(
    session: AsyncSession, *, journal: str, accounts: Collection[str] | None = None
) -> None:
    """Delete a journal's slices, of all accounts or of some, but for those that hold money."""
    empty = delete(models.Slice).where(
        models.Slice.journal == journal, models.Slice.granted == models.Slice.settled
    )
    if accounts is not None:
        empty = empty.where(models.Slice.account.in_(sorted(accounts)))
    await session.execute(empty)


async def find_crowds(
    session: AsyncSession, *, accounts: Collection[str], asked_after: datetime
) -> dict[str, Crowd]:
    """What the processes hold of accounts, and ask for, by account."""
    if not accounts:
        return {}
    held = models.Slice
    used = case((held.settled > held.spent, held.settled), else_=held.spent)
    rows = await session.execute(
        select(
            held.account,
            func.sum(case((held.granted > used, held.granted - used), else_=0)),
            func.sum(case((held.asked_at > asked_after, held.demand + 1), else_=0)),
        )
        .where(held.account.in_(sorted(accounts)))
        .group_by(held.account)
    )
    return {account: Crowd(int(unspent), float(demand)) for account, unspent, demand in rows}


async def sum_held(session: AsyncSession, *, account: str) -> int:
    """What all processes hold of an account: granted, and not settled."""
    held = await session.scalar(
        select(func.sum(models.Slice.granted - models.Slice.settled)).where(
            models.Slice.account == account
        )
    )
    return int(held or 0)


async def find_money(session: AsyncSession, *, account: str) -> tuple[int, int]:
    """What an account has available and what is held of it, at one moment.

    One statement: on MySQL two would see a grant between them twice or not at all.
    """
    held = select(func.sum(models.Slice.granted - models.Slice.settled)).where(
        models.Slice.account == account
    )
    free = select(Account.available).where(Account.id == account)
    row = (await session.execute(select(free.scalar_subquery(), held.scalar_subquery()))).one()
    return int(row[0] or 0), int(row[1] or 0)


async def list_ended(session: AsyncSession, *, silent_since: datetime | None) -> list[str]:
    """Journals with slices of which nothing more is to come.

    Closed ones of which everything has arrived; and those not heard since `silent_since`, unless
    they have been given up already.
    """
    last = case((Journal.reported > Journal.highest, Journal.reported), else_=Journal.highest)
    ended = and_(Journal.closed, Journal.received == last)
    if silent_since is not None:
        ended = or_(ended, and_(Journal.heard_at <= silent_since, Journal.lost.is_(False)))
    with_slices = Journal.id.in_(select(models.Slice.journal))
    found = await session.scalars(select(Journal.id).where(ended, with_slices))
    return list(found)


async def list_lost(session: AsyncSession, *, silent_since: datetime) -> list[str]:
    """Journals with slices that were given up and not heard since a moment."""
    with_slices = Journal.id.in_(select(models.Slice.journal))
    found = await session.scalars(
        select(Journal.id).where(Journal.lost, Journal.heard_at <= silent_since, with_slices)
    )
    return list(found)


async def lock_journal(session: AsyncSession, *, journal: str) -> Journal | None:
    """Hold a journal until the transaction ends: no event of it arrives meanwhile."""
    return await session.get(Journal, journal, with_for_update=True)
