"""All SQL about the usage that invoices bill: its sums, and the late events among it."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import Select, and_, case, func, insert, literal, null, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from services.billing.amounts import exact, labelled
from services.billing.bulk_insert import table_of
from services.billing.indexes import in_account_order
from services.billing.invoices.making import Usage
from services.billing.invoices.models import LateEvent
from services.billing.models import UsageEvent, UsageHour, UsageMonth, UsageVersion
from services.billing.periods import next_period, start_of


def _all_usage(period: str) -> Select[Any]:
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
    async for row in await connection.stream(_all_usage(period)):
        yield _usage(row)


async def find_billed(session: AsyncSession, *, account: str, period: str) -> list[Usage]:
    """Return what a closed month bills an account, by model, price and version.

    A key may come twice: late events of earlier months come separately.
    """
    mine = UsageEvent.account == account
    in_month = in_account_order(_in_month(select(*_sums()), period)).where(mine).group_by(*_KEYS)
    late = _late(select(*_sums()), period).where(LateEvent.account == account).group_by(*_KEYS)
    return [_usage(row) for found in (in_month, late) for row in await session.execute(found)]


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
