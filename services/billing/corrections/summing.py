"""Sums of what was taken back, for events that the version before takes back without them.

Pods of the version before go on until an update is complete, so this runs in the migration and
again whenever a month is closed. It is safe to repeat: it adds only what is missing.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Select, and_, insert, select, text, union_all, update

from services.billing.amounts import columns, differing, exact, join, labelled
from services.billing.bulk_insert import table_of
from services.billing.corrections.models import EventReversal
from services.billing.invoices.models import ReversedLine
from services.billing.models import Plan, Price, UsageEvent

_KEYS = ("account", "period", "model", "price_id")


def missing_sums(
    *, accounts: Collection[str] | None = None, archived: Select[str] | None = None
) -> Select[Any]:
    """Select where the stored sums of what was taken back lack something, by line.

    What the sums lack is `more`.

    Args:
        accounts: only their events; by default, all.
        archived: selects months to leave out, because their events are not in the database.
    """
    stored = ReversedLine
    has = select(
        *(getattr(stored, name).label(name) for name in _KEYS),
        *exact(stored.amount_low, high=stored.amount_high).minus().named("more"),
    )
    same = and_(
        EventReversal.time == UsageEvent.time,
        EventReversal.id == UsageEvent.id,
        EventReversal.source == UsageEvent.source,
    )
    amount = exact(EventReversal.amount_low, high=EventReversal.amount_high)
    reversed_: Select[Any] = (
        select(*(getattr(UsageEvent, name) for name in _KEYS), *amount.named("more"))
        .select_from(EventReversal)
        .join(UsageEvent, same)
    )
    if accounts is not None:
        has = has.where(stored.account.in_(sorted(accounts)))
        reversed_ = reversed_.where(EventReversal.account.in_(sorted(accounts)))
    if archived is not None:
        has = has.where(stored.period.not_in(archived))
        reversed_ = reversed_.where(UsageEvent.period.not_in(archived))
    both = union_all(has, reversed_).subquery()
    keys = [both.c[name] for name in _KEYS]
    total = labelled(both.c, "more").total().named("more")
    sums = select(*keys, *total).group_by(*keys).subquery()
    return differing(sums, "more").order_by(*(text(name) for name in _KEYS))


def add_missing(
    connection: Connection,
    *,
    accounts: Collection[str] | None = None,
    archived: Select[str] | None = None,
) -> None:
    """Add what the sums lack; the accounts are locked, or no other process is at work.

    Args:
        accounts: like those of `missing_sums`, and so is `archived`.
    """
    found = connection.execute(missing_sums(accounts=accounts, archived=archived)).all()
    prepaid = _prepaid(connection, price_ids={row.price_id for row in found})
    table = table_of(ReversedLine)
    for row in found:
        key = {name: getattr(row, name) for name in _KEYS}
        more = labelled(row, "more").value()
        returned = more if row.price_id in prepaid else 0
        is_line = and_(*(table.c[name] == value for name, value in key.items()))
        names = ("amount_high", "amount", "returned_high", "returned")
        old = connection.execute(select(*(table.c[name] for name in names)).where(is_line)).first()
        if old is None:
            values = {**columns("amount", more), **columns("returned", returned)}
            connection.execute(insert(table).values(**key, **values))
        else:
            values = {
                **columns("amount", join(old[0], old[1]) + more),
                **columns("returned", join(old[2], old[3]) + returned),
            }
            connection.execute(update(table).where(is_line).values(values))


def _prepaid(connection: Connection, *, price_ids: Collection[str]) -> set[str]:
    found = connection.execute(
        select(Price.id)
        .join(Plan, Plan.id == Price.plan_id)
        .where(Price.id.in_(sorted(price_ids)), Plan.billing == "prepaid")
    )
    return set(found.scalars())
