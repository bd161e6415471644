"""Usage: its sums by month and by hour, and its receipts."""

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.archives.reading import (
    NO_ARCHIVES,
    Archives,
    Wanted,
    merged,
)
from services.billing.bulk_insert import ColumnInsert
from services.billing.csv_text import csv_lines
from services.billing.cursors import from_cursor, invalid_cursor, to_cursor
from services.billing.event_places import EventPlace
from services.billing.invoices.numbers import find_numbers
from services.billing.ledger.accounts import find_currencies
from services.billing.models import UsageEvent
from services.billing.plans.service import find_currency
from services.billing.usage import repository
from services.billing.usage.edges import hour_edges, list_archived, read_settled, value_of
from services.billing.usage.grouping import (
    by_model,
    by_time,
    by_value,
    part_group,
    time_unit,
    total_of,
)
from services.billing.usage.parts import Part, list_parts
from services.billing.usage.schemas import (
    Bucket,
    ReceiptPage,
    ReceiptRead,
    TimeBucket,
    Total,
    UsageRead,
    read_receipt,
)
from services.billing.usage.sums import (
    NO_USAGE,
    BreakdownKey,
    HourKey,
    MonthKey,
    Sums,
    VersionKey,
    choose_values,
    is_tag,
    month_of,
)
from services.common.contracts import format_amount
from services.common.db.database import Database
from services.common.errors import BodyInvalid, NotFound
from services.common.times import parse_instant

MAX_PAGE = 1000
MAX_VALUES = 10_000
"""Buckets of a dimension."""
TAG_VALUES_PER_HOUR = 1000
"""Values of a tag that an account's sums of an hour have; usage of others is in the rest."""

_MOMENT = timedelta(microseconds=1)


class ReceiptNotFound(NotFound):
    """The account has no receipt for this event."""

    code = "receipt_not_found"
    detail = "There is no receipt for this event."


# -- adding --------------------------------------------------------------------------------------


async def lock_months(session: AsyncSession, *, keys: Collection[MonthKey]) -> dict[MonthKey, Sums]:
    """Lock the sums of months until the transaction ends, creating those that are missing.

    If another transaction creates one at the same time, this one must start over and see its sums.

    Raises:
        IntegrityError: another transaction has just created one of them.
    """
    if not keys:
        return {}
    sums = await repository.lock_months(session, keys=keys)
    missing = set(keys) - sums.keys()
    if missing:
        await repository.add_months(session, keys=missing)
    return sums | dict.fromkeys(missing, NO_USAGE)


def sum_inserts(
    session: AsyncSession,
    *,
    months: Mapping[MonthKey, Sums],
    hours: Mapping[HourKey, Sums],
    versions: Mapping[VersionKey, Sums],
) -> Iterator[ColumnInsert]:
    """Return INSERTs that add to the sums of new events' months, which are locked, and hours."""
    dialect = session.get_bind().dialect.name
    return repository.sum_inserts(months=months, hours=hours, versions=versions, dialect=dialect)


async def add_to_breakdowns(session: AsyncSession, breakdowns: Mapping[BreakdownKey, Sums]) -> None:
    """Add to the sums of new events' hours by API key and tag."""
    await repository.add_to_breakdowns(session, sums=await _within_limit(session, breakdowns))


async def _within_limit(
    session: AsyncSession, breakdowns: Mapping[BreakdownKey, Sums]
) -> Mapping[BreakdownKey, Sums]:
    """Leave out new values of a tag that has too many in an hour: those that differ everywhere.

    Batches at the same time may each add some, so there can be a few more than the limit.
    """
    new = Counter(key.group for key in breakdowns if is_tag(key.dimension))
    counts = await repository.count_values(session, groups=new.keys())
    crowded = {group for group in new if counts.get(group, 0) + new[group] > TAG_VALUES_PER_HOUR}
    if not crowded:
        return breakdowns
    keys = {key for key in breakdowns if key.group in crowded}
    known = await repository.find_values(session, keys=keys)
    chosen = choose_values(keys, counts=counts, known=known, limit=TAG_VALUES_PER_HOUR)
    return {key: sums for key, sums in breakdowns.items() if key not in keys or key in chosen}


async def count_requests(
    session: AsyncSession, *, accounts: Collection[str], period: str
) -> dict[tuple[str, str], int]:
    """Return how many requests accounts made in a month, by account and price."""
    if not accounts:
        return {}
    return await repository.count_month(session, accounts=accounts, period=period)


async def sum_prepaid(session: AsyncSession, *, account: str, since: datetime) -> int:
    """Return what an account was charged for prepaid usage from the hour of a moment on."""
    return await repository.sum_prepaid(session, account=account, since=since)


# -- reading -------------------------------------------------------------------------------------


async def read_usage(
    database: Database,
    archives: Archives = NO_ARCHIVES,
    *,
    account: str,
    since: datetime | None,
    until: datetime | None,
    group_by: str,
    default_plan: str | None,
    now: datetime,
) -> UsageRead:
    """Return what an account used within a half-open window, by default this UTC month until now.

    Raises:
        BodyInvalid: the window ends before it begins, or there are too many buckets.
    """
    since = (since or month_of(now)).astimezone(UTC)
    until = (until or now).astimezone(UTC)
    if since > until:
        raise BodyInvalid([{"loc": ["query", "from"], "msg": "Must not be after `to`."}])
    edges = hour_edges(since, until)
    unit = time_unit(group_by)
    buckets: list[TimeBucket] | list[Bucket]
    if unit is not None or group_by == "model":
        async with database.snapshot() as session:
            parts, files = await read_settled(
                session,
                edges,
                account,
                lambda: list_parts(
                    session,
                    account=account,
                    since=since,
                    until=until,
                    group=part_group(unit),
                ),
            )
        async for event in list_archived(archives, files, account=account, windows=edges):
            parts.append(Part(event.time, event.model, -1, -event.rows, -event.amount))
        total = total_of(parts)
        buckets = by_time(parts, unit, since=since, until=until) if unit else by_model(parts)
    else:
        total, buckets = await _break_down(
            database, archives, account=account, dimension=group_by, since=since, until=until
        )
    async with database.snapshot() as session:
        currency = await find_currency(session, account=account, default_plan=default_plan, now=now)
    return UsageRead(
        account=account,
        since=since,
        until=until,
        total=Total(
            requests=total.requests,
            rows=total.rows,
            amount=format_amount(total.amount),
            currency=currency,
        ),
        buckets=buckets,
    )


async def _break_down(
    database: Database,
    archives: Archives,
    *,
    account: str,
    dimension: str,
    since: datetime,
    until: datetime,
) -> tuple[Sums, list[Bucket]]:
    """Return usage in total and by the values of a dimension.

    In an hour in which a version before counted some of the events, subtracting those outside the
    window may leave less than nothing. Such a value is left to the rest.

    Raises:
        BodyInvalid: there are too many values.
    """
    edges = hour_edges(since, until)
    async with database.snapshot() as session:
        (total, values), files = await read_settled(
            session,
            edges,
            account,
            lambda: repository.break_down(
                session,
                account=account,
                dimension=dimension,
                since=since,
                until=until,
                limit=MAX_VALUES + 1,
            ),
        )
    async for event in list_archived(archives, files, account=account, windows=edges):
        sums = Sums(1, event.rows, event.amount)
        total = total.minus(sums)
        if (value := value_of(event, dimension)) is not None:
            values[value] = values.get(value, NO_USAGE).minus(sums)
    if len(values) > MAX_VALUES:
        raise BodyInvalid(
            [
                {
                    "loc": ["query", "group_by"],
                    "msg": f"Has more than {MAX_VALUES} values; choose a shorter window.",
                }
            ]
        )
    whole = {value: sums for value, sums in values.items() if min(sums) >= 0}
    with_value = NO_USAGE
    for sums in whole.values():
        with_value = with_value.plus(*sums)
    return total, by_value(whole, rest=total.minus(with_value))


# -- receipts ------------------------------------------------------------------------------------


class Billed(NamedTuple):
    """An event, and what its receipt says besides."""

    event: UsageEvent
    currency: str
    invoice: str | None


async def find_billed(
    database: Database, archives: Archives = NO_ARCHIVES, *, account: str | None, event_id: str
) -> Billed:
    """Return an event, of one account or of any.

    Raises:
        ReceiptNotFound: there is no such event, or it is another account's.
    """
    event = None
    if event_id.isascii():  # MySQL cannot compare other text with an ASCII column
        async with database.snapshot() as session:
            event = await repository.find_event(session, account=account, event_id=event_id)
            places = await repository.find_places(session, event_id=event_id)
        for time in sorted({place.time for place in places}) if event is None else ():
            wanted = Wanted(account=account, ids=[event_id], since=time, until=time + _MOMENT)
            found = await archives.list_first(database, wanted, limit=1)
            event = event or next(iter(found), None)
    if event is None:
        raise ReceiptNotFound()
    async with database.snapshot() as session:
        currencies = await find_currencies(session, accounts=[event.account])
        numbers = await find_numbers(session, account=event.account, periods=[event.period])
    return Billed(event, currencies[event.account], numbers.get(event.period))


async def read_receipts(
    database: Database,
    archives: Archives = NO_ARCHIVES,
    *,
    account: str,
    since: datetime | None = None,
    until: datetime | None = None,
    after: EventPlace | None = None,
    limit: int,
) -> ReceiptPage:
    """Return a page of receipts, newest first."""
    async with database.snapshot() as session:
        stored = await repository.list_events(
            session, account=account, since=since, until=until, after=after, limit=limit + 1
        )
    # A full page leaves no room for older events.
    since = max(filter(None, [since, stored[-1].time])) if len(stored) > limit else since
    wanted = Wanted(account=account, since=since, until=until, before=after)
    archived = await archives.list_first(database, wanted, limit=limit + 1, newest=True)
    events = merged(stored, archived, newest=True)
    page = events[:limit]
    async with database.snapshot() as session:
        currencies = await find_currencies(session, accounts=[account])
        numbers = await find_numbers(
            session, account=account, periods={event.period for event in page}
        )
    return ReceiptPage(
        events=[
            read_receipt(event, currency=currencies[account], invoice=numbers.get(event.period))
            for event in page
        ],
        next_cursor=_cursor(page[-1]) if len(events) > limit else None,
    )


async def stream_csv(
    database: Database,
    archives: Archives = NO_ARCHIVES,
    *,
    account: str,
    since: datetime | None,
    until: datetime | None,
) -> AsyncIterator[str]:
    """Yield all receipts as CSV, newest first, a page at a time.

    Each page uses its own connection, so that a slow reader does not block one.
    """
    columns = list(ReceiptRead.model_fields)
    yield csv_lines([columns])
    after: EventPlace | None = None
    while True:
        page = await read_receipts(
            database,
            archives,
            account=account,
            since=since,
            until=until,
            after=after,
            limit=MAX_PAGE,
        )
        rows = [receipt.model_dump(mode="json") for receipt in page.events]
        yield csv_lines([[row[column] for column in columns] for row in rows])
        if page.next_cursor is None:
            return
        after = parse_cursor(page.next_cursor)


def _cursor(event: UsageEvent) -> str:
    return to_cursor(event.time.isoformat(), event.id, event.source)


def parse_cursor(cursor: str) -> EventPlace:
    """Return the end of the page that a cursor encodes.

    Raises:
        BodyInvalid: the cursor is invalid.
    """
    time, event_id, source = from_cursor(cursor, parts=3)
    try:
        return EventPlace(parse_instant(time), event_id, source)
    except ValueError as error:
        raise invalid_cursor() from error
