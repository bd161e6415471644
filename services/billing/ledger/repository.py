"""All SQL about accounts, credits and credit reservations.

A transaction that changes an account's money or one of its reservations locks the account's row.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, delete, func, insert, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import amounts, models
from services.billing.bulk_insert import insert_rows, table_of, upsert
from services.billing.ledger.entries import Entry
from services.billing.ledger.reservations import (
    CreditReservation,
    Funds,
    LockedMoney,
    ReservationKey,
    ReservedCredit,
)
from services.billing.models import Account, Credit, LedgerEntry, LedgerPosting
from services.billing.sources.models import Journal

_Row = models.CreditReservation
_ADD_POSTINGS = insert(table_of(LedgerPosting))
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


# -- accounts ------------------------------------------------------------------------------------


async def find_currencies(session: AsyncSession, *, accounts: Collection[str]) -> dict[str, str]:
    """Return the currency of each account that has one."""
    rows = await session.execute(
        select(Account.id, Account.currency).where(Account.id.in_(sorted(accounts)))
    )
    return {account: currency for account, currency in rows}


async def lock_accounts(session: AsyncSession, *, accounts: Collection[str]) -> dict[str, Funds]:
    """Lock accounts until the transaction ends; leave out unknown ones."""
    rows = await session.execute(
        select(Account.id, Account.currency, Account.available_high, Account.available_low)
        .where(Account.id.in_(sorted(accounts)))
        .order_by(Account.id)
        .with_for_update()
    )
    return {account: Funds(currency, amounts.join(*parts)) for account, currency, *parts in rows}


async def lock_money(
    session: AsyncSession, *, accounts: Collection[str], journals: Collection[str]
) -> LockedMoney:
    """Lock accounts; return what each has available, and their reservations for some journals.

    One statement reads both, because with a thousand accounts every row counts. The reservations of
    unknown accounts, which have no money, are returned without a lock.
    """
    account, *columns = _COLUMNS
    rows = await session.execute(
        select(
            Account.id, Account.currency, Account.available_high, Account.available_low, *columns
        )
        .outerjoin(_Row, and_(account == Account.id, _Row.journal.in_(sorted(journals))))
        .where(Account.id.in_(sorted(accounts)))
        .order_by(Account.id)
        .with_for_update()
    )
    funds: dict[str, Funds] = {}
    reservations: dict[ReservationKey, CreditReservation] = {}
    for account_id, currency, high, low, journal, *rest in rows:
        funds[account_id] = Funds(currency, amounts.join(high, low))
        if journal is not None:
            key = ReservationKey(account_id, journal)
            reservations[key] = _reservation(account_id, journal, *rest)
    unknown = set(accounts) - funds.keys()
    if unknown:
        reservations |= await find_reservations(session, accounts=unknown, journals=journals)
    return LockedMoney(funds, reservations)


async def add_accounts(
    session: AsyncSession, *, currencies: Mapping[str, str], now: datetime
) -> None:
    """Insert accounts without money.

    A plain insert, because if another transaction was first, this one must start over and see the
    currency it fixed.

    Raises:
        IntegrityError: another transaction has just inserted one of them.
    """
    await session.execute(
        insert(Account),
        [
            {"id": account, "currency": currency, "available_low": 0, "created_at": now}
            for account, currency in sorted(currencies.items())
        ],
    )


async def add_available(
    session: AsyncSession, *, changes: Mapping[str, int], now: datetime
) -> None:
    """Add to what accounts have available; they exist and are locked.

    An upsert, because drivers send its rows in one statement, but updates one by one.
    """
    rows = [
        {"id": account, "currency": "", "created_at": now} | amounts.columns("available", change)
        for account, change in changes.items()
        if change
    ]
    await upsert(session, Account, rows, add_amounts=["available"])


# -- entries -------------------------------------------------------------------------------------


async def add_entry(session: AsyncSession, entry: Entry) -> int:
    """Insert an entry with its postings; return its id."""
    stored = await session.execute(insert(table_of(LedgerEntry)).values(entry.row()))
    (entry_id,) = stored.inserted_primary_key  # type: ignore[attr-defined]
    await insert_rows(session, _ADD_POSTINGS, entry.posting_rows(entry_id))
    return int(entry_id)


# -- credits -------------------------------------------------------------------------------------


async def add_credit(
    session: AsyncSession,
    *,
    account: str,
    amount: int,
    currency: str,
    reason: str,
    by: str,
    now: datetime,
) -> Credit:
    """Insert a credit that has no ledger entry yet."""
    high, low = amounts.split(amount)
    added = Credit(
        account=account,
        amount_high=high,
        amount_low=low,
        currency=currency,
        reason=reason,
        by=by,
        created_at=now,
    )
    session.add(added)
    await session.flush()
    return added


async def find_money(session: AsyncSession, *, account: str) -> tuple[int, int]:
    """Return what an account has available and what processes have reserved of it.

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


# -- reservations --------------------------------------------------------------------------------


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
    return {ReservationKey(each.account, each.journal): each for each in reservations}


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


# -- journals with reservations ------------------------------------------------------------------


async def list_reclaimable(session: AsyncSession, *, silent_since: datetime | None) -> list[str]:
    """Return the journals with reservations that expect no more events.

    These are closed journals of which everything has arrived, and journals not heard from since
    `silent_since`, unless they were declared lost before.
    """
    last = case((Journal.reported > Journal.highest, Journal.reported), else_=Journal.highest)
    ended = and_(Journal.closed, Journal.received == last)
    if silent_since is not None:
        ended = or_(ended, and_(Journal.heard_at <= silent_since, Journal.lost.is_(False)))
    return await _list_journals(session, ended)


async def list_purgeable(session: AsyncSession, *, silent_since: datetime) -> list[str]:
    """Return the lost journals with reservations that were not heard from since a moment."""
    return await _list_journals(session, and_(Journal.lost, Journal.heard_at <= silent_since))


async def _list_journals(session: AsyncSession, wanted: ColumnElement[bool]) -> list[str]:
    has_reservations = Journal.id.in_(select(_Row.journal))
    return list(await session.scalars(select(Journal.id).where(wanted, has_reservations)))
