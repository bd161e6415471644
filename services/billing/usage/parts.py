"""An account's usage in parts: by hour, day or model. All SQL of that."""

from datetime import datetime
from functools import cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import CompoundSelect, Select, bindparam, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.archives.models import is_not_archived
from services.billing.models import UsageEvent, UsageHour
from services.billing.usage.columns import exact_sums, negated_event_sums, sums_of
from services.billing.usage.sums import HOUR, hour_of
from services.common.times import parse_instant

PartGroup = Literal["hour", "day", "model"]


class Part(NamedTuple):
    """Usage of a model, or in the hour or day of `time`."""

    time: datetime
    model: str
    requests: int
    rows: int
    amount: int


async def list_parts(
    session: AsyncSession, *, account: str, since: datetime, until: datetime, group: PartGroup
) -> list[Part]:
    """Return what an account used from `since` until before `until`, in parts to be added up.

    Whole hours come from their sums. Events of the first and last hour outside the window are
    subtracted; the usual window, from the start of the month until now, has no such events. One
    statement reads both at the same instant. It leaves out events of archived months.

    Args:
        group: what the parts are separated by; their other field is the same for all. A year has
            far fewer days than hours.
    """
    first, last = hour_of(since), hour_of(until)
    values = {"account": account, "first": first, "since": since, "until": until, "last": last}
    return [
        Part(
            since if group == "model" else _moment(row.key),
            row.key if group == "model" else "",
            *sums_of(row),
        )
        for row in await session.execute(_statement(group), values | {"end": last + HOUR})
    ]


@cache
def _statement(group: PartGroup) -> CompoundSelect[Any]:
    """Return the statement, whose many expressions take longer to build than to run."""
    of_hour, of_event = {
        "hour": (UsageHour.hour, UsageEvent.time),
        "day": (func.date(UsageHour.hour), func.date(UsageEvent.time)),
        "model": (UsageHour.model, UsageEvent.model),
    }[group]
    hours = (
        select(of_hour.label("key"), *exact_sums(UsageHour))
        .where(
            UsageHour.account == bindparam("account"),
            UsageHour.hour >= bindparam("first"),
            UsageHour.hour <= bindparam("last"),
        )
        .group_by(of_hour)
    )
    before = _subtracted(of_event, since="first", until="since")
    after = _subtracted(of_event, since="until", until="end")
    return union_all(hours, before, after)


def _moment(key: Any) -> datetime:
    """Return a time, or the start of a day as MySQL (a date) or SQLite (a text) returns it."""
    return key if isinstance(key, datetime) else parse_instant(f"{key}T00:00:00Z")


def _subtracted(key: Any, *, since: str, until: str) -> Select[Any]:
    return (
        select(
            key.label("key"),
            *negated_event_sums(),
        )
        .where(
            UsageEvent.account == bindparam("account"),
            UsageEvent.time >= bindparam(since),
            UsageEvent.time < bindparam(until),
            is_not_archived(),
        )
        .group_by(key)
    )
