"""All SQL about credit reservations. A transaction that changes one locks its account's row."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, case, delete, func, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts, models
from services.billing.bulk_insert import upsert
from services.billing.ledger.reservations import CreditReservation
from services.billing.models import Account, Journal

ReservationKey = tuple[str, str]
"""Account and journal."""

_Row = models.CreditReservation
_AMOUNTS = ("granted", "settled", "returned", "spent")
_COLUMNS = [
    _Row.account,
    _Row.journal,
    _Row.sequence,
    _Row.demand,
    *(getattr(_Row, f"{name}_{part}") for name in _AMOUNTS for part in ("high", "low")),
]
# Names of columns, not of attributes: `ask_no` is `sequence`, `asked_at` is `requested_at`.
_REQUEST = ["spent_high", "spent", "ask_no", "demand", "asked_at"]
_MONEY = ["granted_high", "granted", "settled_high", "settled", "returned_high", "returned"]
_HAS_MONEY = amounts.differ(
    (_Row.granted_high, _Row.granted_low), (_Row.settled_high, _Row.settled_low)
)
"""Whether a reservation has money that is not settled."""


class ReservedCredit(NamedTuple):
    """What one process run may still spend of an account, and when it was last heard from."""

    journal: str
    unspent: int
    heard_at: datetime | None


async def find_reservations(
    session: AsyncSession, *, accounts: Collection[str], journals: Collection[str]
) -> dict[ReservationKey, CreditReservation]:
    """Return the reservations of some accounts and journals."""
    return await _find(
        session,
        select(*_COLUMNS).where(
            _Row.account.in_(sorted(accounts)), _Row.journal.in_(sorted(journals))
        ),
    )


async def lock_reservations(
    session: AsyncSession, *, accounts: Collection[str], journals: Collection[str]
) -> tuple[dict[str, int], dict[ReservationKey, CreditReservation]]:
    """Lock accounts; return what each has available, and their reservations for some journals.

    One statement reads both, because with a thousand accounts every row counts. The reservations of
    unknown accounts, which have no money, are returned without a lock.
    """
    account, *columns = _COLUMNS
    found = await session.execute(
        select(Account.id, Account.available_high, Account.available_low, *columns)
        .outerjoin(_Row, and_(account == Account.id, _Row.journal.in_(sorted(journals))))
        .where(Account.id.in_(sorted(accounts)))
        .order_by(Account.id)
        .with_for_update()
    )
    available: dict[str, int] = {}
    reservations: dict[ReservationKey, CreditReservation] = {}
    for account_id, high, low, journal, *rest in found:
        available[account_id] = amounts.join(high, low)
        if journal is not None:
            reservations[account_id, journal] = _reservation(account_id, journal, *rest)
    unknown = set(accounts) - available.keys()
    if unknown:
        reservations |= await find_reservations(session, accounts=unknown, journals=journals)
    return available, reservations


async def find_ended(session: AsyncSession, *, journals: Collection[str]) -> set[str]:
    """Return those of some journals whose reservations are deleted, or are about to be.

    Call this after `lock_reservations`: a reservation that was not found may just have been
    deleted, and a new one would not know what the deleted one had settled.
    """
    ended = or_(Journal.closed, Journal.purged)
    found = await session.scalars(select(Journal.id).where(Journal.id.in_(sorted(journals)), ended))
    return set(found)


async def list_reservations(
    session: AsyncSession, *, journal: str, after: str, limit: int
) -> dict[ReservationKey, CreditReservation]:
    """Return a journal's reservations ordered by account, starting after one."""
    return await _find(
        session,
        select(*_COLUMNS)
        .where(_Row.journal == journal, _Row.account > after)
        .order_by(_Row.account)
        .limit(limit),
    )


async def _find(
    session: AsyncSession, found: Select[Any]
) -> dict[ReservationKey, CreditReservation]:
    reservations = [_reservation(*row) for row in await session.execute(found)]
    return {(each.account, each.journal): each for each in reservations}


def _reservation(
    account: str, journal: str, sequence: int, demand: float, *parts: int
) -> CreditReservation:
    """Return a reservation from the values of `_COLUMNS`."""
    granted, settled, returned, spent = map(amounts.join, parts[::2], parts[1::2])
    return CreditReservation(account, journal, granted, settled, returned, spent, sequence, demand)


async def put_requests(
    session: AsyncSession,
    *,
    reservations: Iterable[CreditReservation],
    now: datetime,
    with_money: bool = True,
) -> None:
    """Store the reservations of the lease requests that arrived now.

    Args:
        with_money: False for unknown accounts, which are not locked. They have no money to grant,
            but another process may be adding some.
    """
    put = [*_REQUEST, *(_MONEY if with_money else [])]
    await upsert(session, _Row, _rows(reservations, now=now), put=put)


async def put_money(
    session: AsyncSession, *, reservations: Iterable[CreditReservation], now: datetime
) -> None:
    """Store the money of existing reservations."""
    await upsert(session, _Row, _rows(reservations, now=now), put=_MONEY)


def _rows(reservations: Iterable[CreditReservation], *, now: datetime) -> list[dict[str, Any]]:
    return [_row(each, now) for each in reservations]


def _row(reservation: CreditReservation, now: datetime) -> dict[str, Any]:
    granted_high, granted = amounts.split(reservation.granted)
    settled_high, settled = amounts.split(reservation.settled)
    returned_high, returned = amounts.split(reservation.returned)
    spent_high, spent = amounts.split(reservation.spent)
    return {
        "account": reservation.account,
        "journal": reservation.journal,
        "granted_high": granted_high,
        "granted": granted,
        "settled_high": settled_high,
        "settled": settled,
        "returned_high": returned_high,
        "returned": returned,
        "spent_high": spent_high,
        "spent": spent,
        "ask_no": reservation.sequence,
        "demand": reservation.demand,
        "asked_at": now,
    }


async def delete_reservations(
    session: AsyncSession, *, journal: str, accounts: Collection[str] | None = None
) -> None:
    """Delete a journal's reservations of all or some accounts, except those that have money."""
    empty = delete(_Row).where(_Row.journal == journal, not_(_HAS_MONEY))
    if accounts is not None:
        empty = empty.where(_Row.account.in_(sorted(accounts)))
    await session.execute(empty)


async def sum_demand(
    session: AsyncSession, *, accounts: Collection[str], requested_after: datetime
) -> dict[str, float]:
    """Return Σ (demand + 1) over the processes with a recent lease request, by account."""
    if not accounts:
        return {}
    rows = await session.execute(
        select(_Row.account, func.sum(_Row.demand + 1))
        .where(_Row.account.in_(sorted(accounts)), _Row.requested_at > requested_after)
        .group_by(_Row.account)
    )
    return {account: float(demand) for account, demand in rows}


async def find_reserved_credit(
    session: AsyncSession, *, accounts: Collection[str]
) -> dict[str, list[ReservedCredit]]:
    """Return what processes may still spend, by account.

    It is not summed in SQL, where SQLite's sums are limited to 64 bits.
    """
    if not accounts:
        return {}
    rows = await session.execute(
        select(*_COLUMNS, Journal.heard_at)
        .outerjoin(Journal, Journal.id == _Row.journal)
        .where(_Row.account.in_(sorted(accounts)), _HAS_MONEY)
    )
    found: dict[str, list[ReservedCredit]] = {}
    for *columns, heard_at in rows:
        each = _reservation(*columns)
        found.setdefault(each.account, []).append(
            ReservedCredit(each.journal, each.unspent, heard_at)
        )
    return found


async def find_money(session: AsyncSession, *, account: str) -> tuple[int, int]:
    """Return what an account has available and what processes hold of it, at one moment.

    This is one statement, because on MySQL two would see a grant between them twice or not at all.
    It is not summed in SQL, where SQLite's sums are limited to 64 bits.
    """
    rows = await session.execute(
        select(
            Account.available_high,
            Account.available_low,
            _Row.granted_high,
            _Row.granted_low,
            _Row.settled_high,
            _Row.settled_low,
        )
        .outerjoin(_Row, and_(_Row.account == Account.id, _HAS_MONEY))
        .where(Account.id == account)
    )
    available, held = 0, 0
    for *free, granted_high, granted_low, settled_high, settled_low in rows:
        available = amounts.join(*free)
        if granted_low is not None:
            held += amounts.join(granted_high, granted_low) - amounts.join(
                settled_high, settled_low
            )
    return available, held


async def list_ended(session: AsyncSession, *, silent_since: datetime | None) -> list[str]:
    """Return the journals with reservations that expect no more events.

    These are closed journals of which everything has arrived, and journals not heard from since
    `silent_since`, unless they were declared lost before.
    """
    last = case((Journal.reported > Journal.highest, Journal.reported), else_=Journal.highest)
    ended = and_(Journal.closed, Journal.received == last)
    if silent_since is not None:
        ended = or_(ended, and_(Journal.heard_at <= silent_since, Journal.lost.is_(False)))
    has_reservations = Journal.id.in_(select(_Row.journal))
    found = await session.scalars(select(Journal.id).where(ended, has_reservations))
    return list(found)


async def list_lost(session: AsyncSession, *, silent_since: datetime) -> list[str]:
    """Return the lost journals with reservations that were not heard from since a moment."""
    has_reservations = Journal.id.in_(select(_Row.journal))
    found = await session.scalars(
        select(Journal.id).where(Journal.lost, Journal.heard_at <= silent_since, has_reservations)
    )
    return list(found)


async def lock_journal(session: AsyncSession, *, journal: str) -> Journal | None:
    """Lock a journal until the transaction ends, so that none of its events arrives meanwhile."""
    return await session.get(Journal, journal, with_for_update=True)
