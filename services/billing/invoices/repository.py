"""All SQL about invoices: the usage they bill, their numbers, and what they say."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Select,
    and_,
    case,
    func,
    insert,
    inspect,
    literal,
    null,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from services.billing.amounts import columns, exact, labelled, split
from services.billing.bulk_insert import insert_rows, table_of, upsert
from services.billing.indexes import in_account_order
from services.billing.invoices.digests import row_digest
from services.billing.invoices.making import PendingCredit, Usage
from services.billing.invoices.models import (
    AccountCredit,
    BillingProfile,
    Invoice,
    InvoiceLine,
    LateEvent,
    NumberSeries,
    ReversedLine,
)
from services.billing.invoices.shares import LineKey
from services.billing.models import Period, UsageEvent, UsageHour, UsageMonth, UsageVersion
from services.billing.periods import next_period, start_of

# -- usage ---------------------------------------------------------------------------------------


def usage_of(period: str) -> Select[Any]:
    """Select the sums of a month's usage by account, model, price and version.

    They are added up in SQL, in one scan of the month; events that belong to an earlier month and
    are billed in this one are found by their list. Ordered by account; a key may come twice.
    """
    in_month = _in_month(select(*_sums()), period).group_by(*_KEYS)
    late = _late(select(*_sums()), period).group_by(*_KEYS)
    both = union_all(in_month, late).subquery()
    return select(both).order_by(both.c.account)


def _in_month(found: Select[Any], period: str) -> Select[Any]:
    """Restrict a selection to the usage events of a month that are billed in it."""
    return found.where(
        UsageEvent.time >= start_of(period),
        UsageEvent.time < start_of(next_period(period)),
        UsageEvent.period == period,
    )


def _late(found: Select[Any], period: str) -> Select[Any]:
    """Restrict a selection to the usage events of earlier months that are billed in a month."""
    return found.join(LateEvent, _same_event()).where(
        LateEvent.period == period, UsageEvent.time < start_of(period)
    )


def _same_event() -> Any:
    return and_(
        LateEvent.time == UsageEvent.time,
        LateEvent.id == UsageEvent.id,
        LateEvent.source == UsageEvent.source,
    )


_KEYS = (UsageEvent.account, UsageEvent.model, UsageEvent.price_id, UsageEvent.version)


def _sums() -> list[Any]:
    amount = exact(UsageEvent.amount_low, high=UsageEvent.amount_high)
    return [
        *_KEYS,
        func.count().label("requests"),
        func.sum(case((_is_unposted(), 1), else_=0)).label("unposted"),
        *exact(UsageEvent.rows).total().named("rows"),
        *amount.total().named("amount"),
    ]


def _is_unposted() -> Any:
    """Return whether an event has no ledger entry: the version before the ledger stored it."""
    has_amount = (UsageEvent.amount_low != 0) | (UsageEvent.amount_high != 0)
    return UsageEvent.entry_id.is_(None) & has_amount


def _usage(row: Any) -> Usage:
    return Usage(
        account=row.account,
        model=row.model,
        price_id=row.price_id,
        version=row.version,
        requests=int(row.requests),
        rows=labelled(row, "rows").value(),
        amount=labelled(row, "amount").value(),
        unposted=int(row.unposted),
    )


async def find_usage(session: AsyncSession, *, account: str, period: str) -> list[Usage]:
    """Return what an account used in a month that is open, from the sums of its hours.

    While a month is open, it bills all of its own events. Only those of earlier months are read one
    by one, by their list.
    """
    hours = _kept_sums(UsageHour, null(), kind="hours", account=account, period=period)
    versions = _kept_sums(
        UsageVersion, UsageVersion.version, kind="versions", account=account, period=period
    ).group_by(UsageVersion.version)
    late = _late(select(literal("late").label("kind"), *_sums()), period).where(
        LateEvent.account == account
    )
    rows = (await session.execute(union_all(hours, versions, late.group_by(*_KEYS)))).all()
    totals = [_usage(row) for row in rows if row.kind == "hours"]
    parts = [_usage(row) for row in rows if row.kind == "versions"]
    unknown = _without_version(totals, parts)
    if unknown:
        parts += await _name_versions(session, unknown, period=period)
    return [*parts, *(_usage(row) for row in rows if row.kind == "late")]


def _kept_sums(
    kept: type[UsageHour | UsageVersion], version: Any, *, kind: str, account: str, period: str
) -> Select[Any]:
    """Select the sums of an account's hours by model and price, in the columns of `_sums`."""
    amount = exact(kept.amount_low, high=kept.amount_high)
    return (
        select(
            literal(kind).label("kind"),
            kept.account,
            kept.model,
            kept.price_id,
            version.label("version"),
            func.sum(kept.requests).label("requests"),
            literal(0).label("unposted"),
            *exact(kept.rows).total().named("rows"),
            *amount.total().named("amount"),
        )
        .where(
            kept.account == account,
            kept.hour >= start_of(period),
            kept.hour < start_of(next_period(period)),
        )
        .group_by(kept.account, kept.model, kept.price_id)
    )


def _without_version(totals: Sequence[Usage], parts: Sequence[Usage]) -> list[Usage]:
    """Return what is left of the sums of hours without those by version."""
    left = {(total.model, total.price_id): total for total in totals}
    for part in parts:
        total = left[part.model, part.price_id]
        left[part.model, part.price_id] = total._replace(
            requests=total.requests - part.requests,
            rows=total.rows - part.rows,
            amount=total.amount - part.amount,
        )
    return [rest for rest in left.values() if rest.requests]


async def _name_versions(
    session: AsyncSession, unknown: Sequence[Usage], *, period: str
) -> list[Usage]:
    """Return usage that the version before counted, with the versions of its events.

    All of it is under one of them, because only the names of the others are needed.
    """
    event, account = UsageEvent, unknown[0].account
    found = await session.execute(
        in_account_order(select(event.model, event.price_id, event.version))
        .where(
            event.account == account,
            event.time >= start_of(period),
            event.time < start_of(next_period(period)),
        )
        .distinct()
    )
    versions: dict[tuple[str, str], list[str]] = {}
    for model, price_id, version in found:
        versions.setdefault((model, price_id), []).append(version)
    named: list[Usage] = []
    for rest in unknown:
        first, *others = versions[rest.model, rest.price_id]
        named.append(rest._replace(version=first))
        named += [rest._replace(version=each, requests=0, rows=0, amount=0) for each in others]
    return named


async def stream_usage(connection: AsyncConnection, *, period: str) -> AsyncIterator[Usage]:
    """Yield what all accounts used in a month, ordered by account."""
    async for row in await connection.stream(usage_of(period)):
        yield _usage(row)


# -- months --------------------------------------------------------------------------------------


async def find_period(session: AsyncSession, *, period: str) -> Period | None:
    """Return a month, if anything happened in it."""
    return await session.get(Period, period)


async def count_events(session: AsyncSession, *, period: str) -> int:
    """Return how many events a month's invoices bill."""
    late = select(func.count()).where(LateEvent.period == period)
    in_month = _in_month(select(func.count()), period)
    return (await session.scalar(in_month) or 0) + (await session.scalar(late) or 0)


async def count_requests(session: AsyncSession, *, period: str) -> int:
    """Return how many events of a month have been counted, by the sums of the month."""
    counted = select(func.sum(UsageMonth.requests)).where(UsageMonth.period == period)
    return int(await session.scalar(counted) or 0)


async def add_late_events(session: AsyncSession, *, period: str) -> None:
    """List the events of earlier months that are billed in a month and are not listed."""
    event = UsageEvent
    found = (
        select(event.period, event.account, event.time, event.id, event.source)
        .outerjoin(LateEvent, _same_event())
        .where(event.period == period, event.time < start_of(period), LateEvent.id.is_(None))
    )
    names = ["period", "account", "time", "id", "source"]
    await session.execute(insert(table_of(LateEvent)).from_select(names, found))


async def mark_invoiced(session: AsyncSession, *, period: str, now: datetime) -> None:
    """Record that all invoices of a month are issued."""
    done = update(Period).where(Period.id == period, Period.invoiced_at.is_(None))
    await session.execute(done.values(invoiced_at=now))


# -- issuing -------------------------------------------------------------------------------------


async def lock_series(session: AsyncSession, *, series: str) -> int:
    """Lock a series until the transaction ends; return its last number, 0 if it is new."""
    await upsert(session, NumberSeries, [{"id": series, "last": 0}])
    row = await session.get_one(NumberSeries, series, with_for_update=True, populate_existing=True)
    return row.last


async def store_last(session: AsyncSession, *, series: str, last: int) -> None:
    """Store the last number of a locked series."""
    await session.execute(update(NumberSeries).where(NumberSeries.id == series).values(last=last))


async def find_invoiced(
    session: AsyncSession, *, accounts: Collection[str], period: str
) -> set[str]:
    """Return those of some accounts that have an invoice of a month."""
    found = select(Invoice.account).where(
        Invoice.account.in_(sorted(accounts)), Invoice.period == period
    )
    return set(await session.scalars(found))


async def find_profiles(
    session: AsyncSession, *, accounts: Collection[str]
) -> dict[str, BillingProfile]:
    """Return the billing profiles of those accounts that have one."""
    found = select(BillingProfile).where(BillingProfile.account.in_(sorted(accounts)))
    return {profile.account: profile for profile in await session.scalars(found)}


async def put_profile(session: AsyncSession, *, values: Mapping[str, Any]) -> None:
    """Store an account's billing profile."""
    await upsert(session, BillingProfile, [values], put=[*(values.keys() - {"account"})])


async def add_invoices(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert invoices."""
    await session.execute(insert(table_of(Invoice)), list(rows))


async def add_lines(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert lines of invoices; `amount` and `rounded` are integers of any size."""
    if rows:
        await insert_rows(
            session,
            insert(table_of(InvoiceLine)),
            [
                {
                    **row,
                    **columns("amount", row["amount"]),
                    **columns("rounded", row["rounded"]),
                }
                for row in rows
            ],
        )


# -- credits that reduce the next invoice --------------------------------------------------------


async def find_credits(
    session: AsyncSession, *, accounts: Collection[str], period: str, lock: bool
) -> dict[str, list[PendingCredit]]:
    """Return the credits that an invoice of a month may use, oldest first, by account.

    Those of a later month wait for its own invoice.

    Args:
        lock: whether to lock them until the transaction ends.
    """
    found = (
        select(AccountCredit)
        .where(
            AccountCredit.account.in_(sorted(accounts)),
            AccountCredit.invoice_id.is_(None),
            AccountCredit.includes_tax
            | AccountCredit.period.is_(None)
            | (AccountCredit.period <= period),
        )
        .order_by(AccountCredit.account, AccountCredit.created_at, AccountCredit.id)
    )
    credits: dict[str, list[PendingCredit]] = {}
    for each in await session.scalars(found.with_for_update() if lock else found):
        line = LineKey(each.model, each.price_id) if each.period == period else None
        pending = PendingCredit(each.id, each.reason, each.amount, each.includes_tax, line)
        credits.setdefault(each.account, []).append(pending)
    return credits


async def lock_credit(
    session: AsyncSession,
    *,
    account: str,
    cause: str,
    period: str,
    line: LineKey,
    includes_tax: bool,
) -> AccountCredit | None:
    """Lock the credit of a cause and line that no invoice has used yet."""
    credit: AccountCredit | None = await session.scalar(
        select(AccountCredit)
        .where(
            AccountCredit.account == account,
            AccountCredit.invoice_id.is_(None),
            AccountCredit.cause == cause,
            AccountCredit.period == period,
            AccountCredit.model == line.model,
            AccountCredit.price_id == line.price_id,
            AccountCredit.includes_tax == includes_tax,
        )
        .with_for_update()
    )
    return credit


def grow_credit(credit: AccountCredit, *, amount: int) -> None:
    """Add to a locked credit that no invoice has used yet."""
    credit.amount_high, credit.amount_low = split(credit.amount + amount)
    credit.digest = _digest(credit)


async def use_credits(session: AsyncSession, *, ids: Collection[str], invoice_id: str) -> None:
    """Mark locked credits as used by an invoice."""
    found = await session.scalars(select(AccountCredit).where(AccountCredit.id.in_(sorted(ids))))
    for credit in found:
        credit.invoice_id = invoice_id
        credit.digest = _digest(credit)


def _digest(credit: AccountCredit) -> str:
    parts = inspect(AccountCredit).column_attrs
    return row_digest({part.columns[0].key: getattr(credit, part.key) for part in parts})


async def add_credits(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert credits; `amount` is an integer of any size."""
    if rows:
        stored = [{"invoice_id": None, **row, **columns("amount", row["amount"])} for row in rows]
        await insert_rows(
            session,
            insert(table_of(AccountCredit)),
            [{**row, "digest": row_digest(row)} for row in stored],
        )


# -- sums of what was taken back -----------------------------------------------------------------


async def add_reversed(session: AsyncSession, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add to sums of what was taken back; `amount` and `returned` are integers of any size."""
    stored = [
        {**row, **columns("amount", row["amount"]), **columns("returned", row["returned"])}
        for row in rows
    ]
    await upsert(session, ReversedLine, stored, add_amounts=["amount", "returned"])


async def find_reversed(
    session: AsyncSession, *, accounts: Collection[str], period: str
) -> Sequence[ReversedLine]:
    """Return what was taken back of some accounts' usage of a month."""
    found = select(ReversedLine).where(
        ReversedLine.account.in_(sorted(accounts)), ReversedLine.period == period
    )
    rows = await session.scalars(found.execution_options(populate_existing=True))
    return rows.all()


# -- reading -------------------------------------------------------------------------------------


async def find_invoice(session: AsyncSession, *, invoice_id: str) -> Invoice | None:
    """Return an invoice by its id."""
    return await session.get(Invoice, invoice_id)


async def list_invoices(
    session: AsyncSession,
    *,
    account: str,
    before: tuple[str, str] | None,
    limit: int,
) -> Sequence[Invoice]:
    """Return an account's invoices, newest first, starting after a month and id."""
    found = select(Invoice).where(Invoice.account == account)
    if before is not None:
        found = found.where(tuple_(Invoice.period, Invoice.id) < before)
    newest_first = (Invoice.period.desc(), Invoice.id.desc())
    return (await session.scalars(found.order_by(*newest_first).limit(limit))).all()


async def list_issued(session: AsyncSession, *, period: str) -> list[Any]:
    """Return id, number, account, currency and total of a month's invoices, by number."""
    found = await session.execute(
        select(
            Invoice.id,
            Invoice.number,
            Invoice.account,
            Invoice.currency,
            Invoice.total_high,
            Invoice.total_low,
        )
        .where(Invoice.period == period)
        .order_by(Invoice.series, Invoice.sequence)
    )
    return list(found)


async def find_numbers(
    session: AsyncSession, *, account: str, periods: Collection[str]
) -> dict[str, str]:
    """Return the numbers of an account's invoices, by month."""
    found = await session.execute(
        select(Invoice.period, Invoice.number).where(
            Invoice.account == account, Invoice.period.in_(sorted(periods))
        )
    )
    return {period: number for period, number in found}
