"""All SQL about usage: sums by hour and by month, and the receipts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, insert, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing import wide
from services.billing.database import upsert
from services.billing.models import EventKey, Receipt, UsageHour, UsageMonth

HOUR = timedelta(hours=1)
_COUNTS = ("requests", "rows")


@dataclass(slots=True)
class Sums:
    """Requests, rows and amount (10⁻⁹ of the unit) of some events."""

    requests: int = 0
    rows: int = 0
    amount: int = 0

    def add(self, *, requests: int = 1, rows: int, amount: int) -> None:
        self.requests += requests
        self.rows += rows
        self.amount += amount


class MonthKey(NamedTuple):
    account: str
    period: str
    price_id: str


class HourKey(NamedTuple):
    account: str
    hour: datetime
    model: str
    price_id: str


class Part(NamedTuple):
    """Part of the use of a model in the hour that `time` lies in."""

    time: datetime
    model: str
    requests: int
    rows: int
    amount: int


class PageEnd(NamedTuple):
    """Where a page of receipts ends."""

    time: datetime
    id: str
    source: str


# -- adding --------------------------------------------------------------------------------------


async def lock_months(session: AsyncSession, *, keys: Collection[MonthKey]) -> dict[MonthKey, Sums]:
    """Hold the sums of months until the transaction ends, created where missing.

    A plain insert: if another transaction was first, this one must start over and see what it did.
    """
    if not keys:
        return {}
    month = UsageMonth
    key_columns = (month.account, month.period, month.price_id)
    found = await session.execute(
        select(*key_columns, month.requests, month.rows, month.amount_high, month.amount_low)
        .where(  # perhaps a few more than the keys, but a list of triples is slow to send and find
            month.account.in_(sorted({key.account for key in keys})),
            month.period.in_(sorted({key.period for key in keys})),
            month.price_id.in_(sorted({key.price_id for key in keys})),
        )
        .order_by(*key_columns)
        .with_for_update()
    )
    sums = {
        MonthKey(account, period, price_id): Sums(requests, rows, wide.join(*amount))
        for account, period, price_id, requests, rows, *amount in found
    }
    missing = sorted(set(keys) - sums.keys())
    if missing:
        zero = {"requests": 0, "rows": 0, "amount_low": 0}
        await session.execute(insert(month), [key._asdict() | zero for key in missing])
    return sums | {key: Sums() for key in missing}


async def add_sums(
    session: AsyncSession,
    *,
    months: Mapping[MonthKey, Sums],
    hours: Mapping[HourKey, Sums],
) -> None:
    """Fold the sums of new events into those of their months and hours."""
    await upsert(session, UsageMonth, _rows(months), add=_COUNTS, add_amounts=["amount"])
    await upsert(session, UsageHour, _rows(hours), add=_COUNTS, add_amounts=["amount"])


def _rows(sums: Mapping[Any, Sums]) -> list[dict[str, Any]]:
    return [
        key._asdict()
        | {name: getattr(counted, name) for name in _COUNTS}
        | wide.columns("amount", counted.amount)
        for key, counted in sums.items()
    ]


async def count_month(
    session: AsyncSession, *, accounts: Collection[str], period: str
) -> dict[tuple[str, str], int]:
    """How many requests accounts made in a month, by account and price."""
    if not accounts:
        return {}
    rows = await session.execute(
        select(UsageMonth.account, UsageMonth.price_id, UsageMonth.requests).where(
            UsageMonth.account.in_(sorted(accounts)), UsageMonth.period == period
        )
    )
    return {(account, price_id): requests for account, price_id, requests in rows}


# -- reading -------------------------------------------------------------------------------------


async def list_parts(
    session: AsyncSession, *, account: str, since: datetime, until: datetime
) -> list[Part]:
    """What an account used from `since` until before `until`, in parts to be added up.

    Whole hours come from their sums, and what lies outside the window in its first and last hour
    is taken off again, receipt by receipt: with the usual window, from the start of the month to
    now, that is nothing. It is one statement so that both are read at the same instant.
    """
    first, last = hour_of(since), hour_of(until)
    hours = select(
        UsageHour.hour,
        UsageHour.model,
        UsageHour.requests,
        UsageHour.rows,
        UsageHour.amount_high,
        UsageHour.amount_low,
    ).where(UsageHour.account == account, UsageHour.hour >= first, UsageHour.hour <= last)
    before = _taken_off(account, since=first, until=since)
    after = _taken_off(account, since=until, until=last + HOUR)
    rows = await session.execute(union_all(hours, before, after))
    # Added up by the caller: SUM overflows at 64 bits on SQLite and is a DECIMAL on MySQL.
    return [
        Part(time, model, int(requests), int(rows), wide.join(int(high), int(low)))
        for time, model, requests, rows, high, low in rows
    ]


def _taken_off(
    account: str, *, since: datetime, until: datetime
) -> Select[datetime, str, int, int, int, int]:
    return select(
        Receipt.time,
        Receipt.model,
        literal(-1),
        -Receipt.rows,
        -Receipt.amount_high,
        -Receipt.amount_low,
    ).where(Receipt.account == account, Receipt.time >= since, Receipt.time < until)


def hour_of(moment: datetime) -> datetime:
    """The UTC hour an aware moment lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


async def list_receipts(
    session: AsyncSession,
    *,
    account: str,
    since: datetime | None,
    until: datetime | None,
    after: PageEnd | None,
    limit: int,
) -> Sequence[Receipt]:
    """An account's receipts, newest first, beginning after the end of a page."""
    receipts = select(Receipt).where(Receipt.account == account)
    if since is not None:
        receipts = receipts.where(Receipt.time >= since)
    if until is not None:
        receipts = receipts.where(Receipt.time < until)
    if after is not None:
        receipts = receipts.where(
            Receipt.time <= after.time,
            or_(
                Receipt.time < after.time,
                Receipt.id < after.id,
                and_(Receipt.id == after.id, Receipt.source < after.source),
            ),
        )
    newest_first = (Receipt.time.desc(), Receipt.id.desc(), Receipt.source.desc())
    found = await session.scalars(receipts.order_by(*newest_first).limit(limit))
    return found.all()


async def find_receipt(
    session: AsyncSession, *, account: str | None, event_id: str
) -> Receipt | None:
    """The receipt for an event, of one account or of whichever it is."""
    same_event = and_(
        Receipt.time == EventKey.time,
        Receipt.id == EventKey.id,
        Receipt.source == EventKey.source,
    )
    found = select(Receipt).join(EventKey, same_event).where(EventKey.id == event_id)
    if account is not None:
        found = found.where(Receipt.account == account)
    receipt: Receipt | None = await session.scalar(found.order_by(EventKey.source).limit(1))
    return receipt
