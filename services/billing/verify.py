"""Whether the books agree: everything that is counted up is recomputed from the receipts.

Each check is one grouped statement that answers only what differs. All of them see the database as
it was at one moment, so usage may arrive meanwhile.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import String, Subquery, cast, func, literal, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.models import (
    Account,
    Credit,
    EventKey,
    Journal,
    JournalRange,
    Plan,
    Price,
    Receipt,
    Slice,
    UsageHour,
    UsageMonth,
)
from services.common.contracts import format_amount
from services.common.db import Database

# MariaDB reads the first comment, MySQL 8 the second: these statements may take their time.
_NO_LIMIT = (
    "SET SESSION innodb_lock_wait_timeout=5"
    " /*M!100000 , max_statement_time=0 */ /*!80000 , max_execution_time=0 */"
)


async def verify(database: Database) -> list[str]:
    """Recompute what is counted up or kept twice; each sentence answered names what differs.

    Raises:
        DBAPIError: the database is away.
    """
    async with _one_view(database) as connection:
        return [
            *await _usage(connection, "usage_hours", _hours(), ("account", "hour", "model")),
            *await _usage(connection, "usage_months", _months(), ("account", "period")),
            *await _slices(connection),
            *await _balances(connection),
            *await _currencies(connection),
            *await _identities(connection),
            *await _journals(connection),
        ]


@asynccontextmanager
async def _one_view(database: Database) -> AsyncIterator[AsyncConnection]:
    """A connection that sees the database as it is now, for as long as it takes."""
    async with database.engine.connect() as connection:
        on_mysql = connection.dialect.name == "mysql"
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ"} if on_mysql else {}
        await connection.execution_options(tollgate_read_only=True, **options)
        try:
            if on_mysql:
                await connection.execute(text(_NO_LIMIT))
            yield connection
        finally:
            if on_mysql:
                await connection.invalidate()  # the next user wants the limit


def _hours() -> Subquery:
    stored = UsageHour
    return union_all(
        select(
            stored.account,
            _hour(stored.hour).label("hour"),
            stored.model,
            stored.price_id,
            stored.requests,
            stored.rows,
            stored.amount,
        ),
        _taken_off(Receipt.account, _hour(Receipt.time), Receipt.model, Receipt.price_id),
    ).subquery()


def _months() -> Subquery:
    stored = UsageMonth
    return union_all(
        select(
            stored.account,
            stored.period,
            stored.price_id,
            stored.requests,
            stored.rows,
            stored.amount,
        ),
        _taken_off(Receipt.account, Receipt.period, Receipt.price_id),
    ).subquery()


def _hour(moment: Any) -> Any:
    """The hour of a moment as text, `2026-11-01 12`: both databases write moments alike."""
    return func.substr(cast(moment, String(26)), 1, 13)


def _taken_off(*keys: Any) -> Any:
    """The receipts' sums by some columns, negative."""
    sums = (-func.count(), -func.sum(Receipt.rows), -func.sum(Receipt.amount))
    return select(*keys, *sums).group_by(*keys)


async def _usage(
    connection: AsyncConnection, table: str, both: Subquery, shown: tuple[str, ...]
) -> list[str]:
    """Where stored sums differ from the receipts': their difference is not zero."""
    keys = [both.c[name] for name in (*shown, "price_id")]
    sums = [func.sum(both.c[name]) for name in ("requests", "rows", "amount")]
    requests, rows, amount = sums
    found = await connection.execute(
        select(*keys, *sums)
        .group_by(*keys)
        .having((requests != 0) | (rows != 0) | (amount != 0))
        .order_by(*keys)
    )
    return [
        f"{table}: {_named(row._mapping, shown)}, price {row.price_id}: differs from the receipts "
        f"by {int(row[-3])} requests, {int(row[-2])} rows and {format_amount(int(row[-1]))}"
        for row in found
    ]


def _named(row: Any, columns: tuple[str, ...]) -> str:
    return ", ".join(f"{column} {row[column]}" for column in columns)


def _prepaid(*keys: Any) -> Any:
    """What prepaid receipts charged, by some columns."""
    return (
        select(*keys, func.sum(Receipt.amount).label("amount"))
        .join(Price, Price.id == Receipt.price_id)
        .join(Plan, Plan.id == Price.plan_id)
        .where(Plan.billing == "prepaid")
        .group_by(*keys)
    )


async def _slices(connection: AsyncConnection) -> list[str]:
    """A slice's settled amount is what it paid for, and what was given back of it."""
    charged = _prepaid(Receipt.account, Receipt.journal).subquery()
    expected = func.coalesce(charged.c.amount, 0) + Slice.returned
    found = await connection.execute(
        select(Slice.account, Slice.journal, Slice.granted, Slice.settled, expected)
        .outerjoin(
            charged,
            (charged.c.account == Slice.account) & (charged.c.journal == Slice.journal),
        )
        .where((Slice.settled != expected) | (Slice.settled > Slice.granted))
        .order_by(Slice.account, Slice.journal)
    )
    return [
        f"slices: account {account}, journal {journal}: {format_amount(settled)} settled of "
        f"{format_amount(granted)} granted, where the receipts say {format_amount(int(said))}"
        for account, journal, granted, settled, said in found
    ]


async def _balances(connection: AsyncConnection) -> list[str]:
    """What an account has is what it was credited, less what it was charged."""
    charged = _prepaid(Receipt.account).subquery()
    parts = union_all(
        select(Account.id.label("account"), Account.available, literal(0).label("expected")),
        select(Slice.account, Slice.granted - Slice.settled, literal(0)),
        select(Credit.account, literal(0), Credit.amount),
        select(charged.c.account, literal(0), -charged.c.amount),
    ).subquery()
    has, expected = func.sum(parts.c.available), func.sum(parts.c.expected)
    found = await connection.execute(
        select(parts.c.account, has, expected)
        .group_by(parts.c.account)
        .having(has != expected)
        .order_by(parts.c.account)
    )
    return [
        f"balances: account {account}: {format_amount(int(balance))}, where credits less charges "
        f"are {format_amount(int(said))}"
        for account, balance, said in found
    ]


async def _currencies(connection: AsyncConnection) -> list[str]:
    """All of an account's money is in its one currency."""
    credited = select(Credit.account, Credit.currency)
    charged = (
        select(Receipt.account, Plan.currency)
        .join(Price, Price.id == Receipt.price_id)
        .join(Plan, Plan.id == Price.plan_id)
    )
    used = credited.union(charged).subquery()
    found = await connection.execute(
        select(Account.id, Account.currency, used.c.currency)
        .join(used, used.c.account == Account.id)
        .where(used.c.currency != Account.currency)
        .order_by(Account.id, used.c.currency)
    )
    return [
        f"accounts: account {account}: {currency}, where its money is in {other}"
        for account, currency, other in found
    ]


async def _identities(connection: AsyncConnection) -> list[str]:
    """Every receipt's identity is kept, else a repeat of its event would be taken for new."""
    same = (EventKey.id == Receipt.id) & (EventKey.source == Receipt.source)
    found = await connection.execute(
        select(Receipt.account, func.count())
        .outerjoin(EventKey, same)
        .where(EventKey.id.is_(None))
        .group_by(Receipt.account)
        .order_by(Receipt.account)
    )
    return [
        f"usage_event_keys: account {account}: {missing} receipts have no identity"
        for account, missing in found
    ]


async def _journals(connection: AsyncConnection) -> list[str]:
    """What a journal says has arrived is what its ranges say."""
    ranges = (
        select(
            JournalRange.journal,
            func.sum(JournalRange.last - JournalRange.first + 1).label("received"),
            func.max(JournalRange.last).label("highest"),
        )
        .group_by(JournalRange.journal)
        .subquery()
    )
    received = func.coalesce(ranges.c.received, 0)
    highest = func.coalesce(ranges.c.highest, 0)
    found = await connection.execute(
        select(Journal.id, Journal.received, Journal.highest, received, highest)
        .outerjoin(ranges, ranges.c.journal == Journal.id)
        .where((Journal.received != received) | (Journal.highest != highest))
        .order_by(Journal.id)
    )
    return [
        f"journals: journal {journal}: {told} received up to {top}, where its ranges say "
        f"{int(said)} up to {said_top}"
        for journal, told, top, said, said_top in found
    ]
