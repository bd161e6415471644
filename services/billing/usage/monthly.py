"""What was used in each month that it is billed in: from the sums of hours, or from all events.

The sums of hours are far fewer. Once they are known to be right, usage by its own month follows
from them. Only events that are billed in another month must be moved there; those are listed.
"""

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.amounts import labelled
from services.billing.archives.comparing import SUMS
from services.billing.archives.models import is_not_archived
from services.billing.invoices.models import LateEvent
from services.billing.models import UsageEvent, UsageHour
from services.billing.usage.columns import exact_sums
from services.billing.usage.windows import own_month

MONTHLY = ("account", "period", "model", "price_id")
"""The columns by which monthly usage is summed up."""


class MonthlyUsage(NamedTuple):
    """Usage by the columns of `MONTHLY`; a key may come more than once.

    Args:
        selection: the keys and exact `SUMS`. Without archives, that is all.
        archived: SQL of what archives add, for `ArchivedEvents`.
        is_listed: whether all late events are known to be listed.
    """

    selection: Select[Any]
    archived: str
    is_listed: bool

    def minus(self, *keys: str) -> Select[Any]:
        """Select the negated sums of the database, and some of the keys."""
        used = self.selection.subquery()
        negated = [part for name in SUMS for part in labelled(used.c, name).minus().named(name)]
        return select(*(used.c[key] for key in keys), *negated)


def used_by_events() -> MonthlyUsage:
    """Return monthly usage according to the events themselves, which takes long."""
    keys = [getattr(UsageEvent, name) for name in MONTHLY]
    events = select(*keys, *exact_sums(UsageEvent)).where(is_not_archived()).group_by(*keys)
    return MonthlyUsage(events, "sums", is_listed=False)


def used_by_hours() -> MonthlyUsage:
    """Return monthly usage according to the sums of hours and the listed late events.

    Hours include archived events, so archives only add what moves from one month to another.
    """
    hour, event = UsageHour, UsageEvent
    of_hours = [hour.account, own_month(hour.hour), hour.model, hour.price_id]
    moved_from = [event.account, own_month(event.time), event.model, event.price_id]
    moved_to = [event.account, event.period, event.model, event.price_id]
    sums = exact_sums(event)
    negated = [(-part).label(part.key) for part in sums]
    both = union_all(
        select(*_named(of_hours), *exact_sums(hour)).group_by(*of_hours),
        _moved(*_named(moved_from), *negated).group_by(*moved_from),
        _moved(*_named(moved_to), *sums).group_by(*moved_to),
    ).subquery()
    moved = "FROM sums WHERE left(hour, 7) <> period"
    archived = (
        f"(SELECT account, period, model, price_id, requests, rows, amount {moved} UNION ALL"
        f" SELECT account, left(hour, 7), model, price_id, -requests, -rows, -amount {moved})"
    )
    return MonthlyUsage(select(both), archived, is_listed=True)


async def count_moved(connection: AsyncConnection) -> int:
    """Return how many events are listed as late and billed in another month than their own."""
    return await connection.scalar(_moved(func.count())) or 0


def _named(keys: list[Any]) -> list[ColumnElement[Any]]:
    return [key.label(name) for key, name in zip(keys, MONTHLY, strict=True)]


def _moved(*columns: Any) -> Select[Any]:
    """Select columns of the events that are listed as late and billed in another month."""
    event = UsageEvent
    return (
        select(*columns)
        .select_from(LateEvent)
        .join(event, is_listed())
        .where(event.period != own_month(event.time), is_not_archived())
    )


def is_listed() -> ColumnElement[bool]:
    """Return whether a late event is the usage event, and they agree."""
    event, late = UsageEvent, LateEvent
    same = and_(late.time == event.time, late.id == event.id, late.source == event.source)
    return and_(same, late.period == event.period, late.account == event.account)
