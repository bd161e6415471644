"""All SQL about slices. Whoever changes one holds its account's row."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, case, delete, func, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import models, wide
from services.billing.database import upsert
from services.billing.leases.slices import Slice
from services.billing.models import Account, Journal

SliceKey = tuple[str, str]
"""Account and journal."""

_AMOUNTS = ("granted", "settled", "returned", "spent")
_COLUMNS = [
    models.Slice.account,
    models.Slice.journal,
    models.Slice.ask_no,
    models.Slice.demand,
    *(getattr(models.Slice, f"{name}_{part}") for name in _AMOUNTS for part in ("high", "low")),
]
_ASKED = ["spent_high", "spent", "ask_no", "demand"]
_MONEY = ["granted_high", "granted", "settled_high", "settled", "returned_high", "returned"]
_HELD = wide.differ(
    (models.Slice.granted_high, models.Slice.granted_low),
    (models.Slice.settled_high, models.Slice.settled_low),
)
"""Whether a slice holds money."""


class Reservation(NamedTuple):
    """What one process run may still spend of an account, and when it was last heard."""

    journal: str
    unspent: int
    heard_at: datetime | None


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
        select(Account.id, Account.available_high, Account.available_low, *columns)
        .outerjoin(
            models.Slice, and_(account == Account.id, models.Slice.journal.in_(sorted(journals)))
        )
        .where(Account.id.in_(sorted(accounts)))
        .order_by(Account.id)
        .with_for_update()
    )
    available: dict[str, int] = {}
    slices: dict[SliceKey, Slice] = {}
    for account_id, high, low, journal, *rest in found:
        available[account_id] = wide.join(high, low)
        if journal is not None:
            slices[account_id, journal] = _slice(account_id, journal, *rest)
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
    slices = [_slice(*row) for row in await session.execute(found)]
    return {(held.account, held.journal): held for held in slices}


def _slice(account: str, journal: str, ask_no: int, demand: float, *parts: int) -> Slice:
    """A slice from the values of `_COLUMNS`."""
    granted, settled, returned, spent = map(wide.join, parts[::2], parts[1::2])
    return Slice(account, journal, granted, settled, returned, spent, ask_no, demand)


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
    return [_row(held, now) for held in slices]


def _row(held: Slice, now: datetime) -> dict[str, Any]:
    granted_high, granted = wide.split(held.granted)
    settled_high, settled = wide.split(held.settled)
    returned_high, returned = wide.split(held.returned)
    spent_high, spent = wide.split(held.spent)
    return {
        "account": held.account,
        "journal": held.journal,
        "granted_high": granted_high,
        "granted": granted,
        "settled_high": settled_high,
        "settled": settled,
        "returned_high": returned_high,
        "returned": returned,
        "spent_high": spent_high,
        "spent": spent,
        "ask_no": held.ask_no,
        "demand": held.demand,
        "asked_at": now,
    }


async def delete_slices(
    session: AsyncSession, *, journal: str, accounts: Collection[str] | None = None
) -> None:
    """Delete a journal's slices, of all accounts or of some, but for those that hold money."""
    empty = delete(models.Slice).where(models.Slice.journal == journal, not_(_HELD))
    if accounts is not None:
        empty = empty.where(models.Slice.account.in_(sorted(accounts)))
    await session.execute(empty)


async def sum_demand(
    session: AsyncSession, *, accounts: Collection[str], asked_after: datetime
) -> dict[str, float]:
    """Return Σ (demand + 1) over the processes that asked for an account lately, by account."""
    if not accounts:
        return {}
    asked = models.Slice
    rows = await session.execute(
        select(asked.account, func.sum(asked.demand + 1))
        .where(asked.account.in_(sorted(accounts)), asked.asked_at > asked_after)
        .group_by(asked.account)
    )
    return {account: float(demand) for account, demand in rows}


async def find_reservations(
    session: AsyncSession, *, accounts: Collection[str]
) -> dict[str, list[Reservation]]:
    """Return what processes may still spend, by account.

    Not added up in SQL, where SQLite's sums end at 64 bits.
    """
    if not accounts:
        return {}
    rows = await session.execute(
        select(*_COLUMNS, Journal.heard_at)
        .outerjoin(Journal, Journal.id == models.Slice.journal)
        .where(models.Slice.account.in_(sorted(accounts)), _HELD)
    )
    found: dict[str, list[Reservation]] = {}
    for *columns, heard_at in rows:
        held = _slice(*columns)
        found.setdefault(held.account, []).append(Reservation(held.journal, held.unspent, heard_at))
    return found


async def find_money(session: AsyncSession, *, account: str) -> tuple[int, int]:
    """Return what an account has available and what processes hold of it, at one moment.

    One statement: on MySQL two would see a grant between them twice or not at all. It is not added
    up in SQL, where SQLite's sums end at 64 bits.
    """
    held = models.Slice
    rows = await session.execute(
        select(
            Account.available_high,
            Account.available_low,
            held.granted_high,
            held.granted_low,
            held.settled_high,
            held.settled_low,
        )
        .outerjoin(held, and_(held.account == Account.id, _HELD))
        .where(Account.id == account)
    )
    available, total = 0, 0
    for *free, granted_high, granted_low, settled_high, settled_low in rows:
        available = wide.join(*free)
        if granted_low is not None:
            total += wide.join(granted_high, granted_low) - wide.join(settled_high, settled_low)
    return available, total


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
