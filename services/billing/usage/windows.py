"""The parts of all time in which verifying reads events, and the hours and months of times."""

from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, and_, case, cast, func, literal, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.models import UsageHour
from services.billing.usage.sums import hour_of

EVENTS_AT_ONCE = 20_000
"""Their groups take a few megabytes of the database's memory."""


class Window(NamedTuple):
    """Some whole hours; the first window has no beginning, and the last one no end."""

    since: datetime | None
    until: datetime | None

    def contains(self, moment: Any) -> ColumnElement[bool]:
        """Return whether a column's moment is in it."""
        begun = true() if self.since is None else moment >= self.since
        return begun if self.until is None else and_(begun, moment < self.until)


ALL_TIME = Window(None, None)


async def find_windows(connection: AsyncConnection) -> list[Window]:
    """Return windows that cover all time, each with few events unless one hour has more.

    The sums of hours say where events are. If those are wrong, windows are only larger or smaller.
    """
    hour, requests = UsageHour.hour, UsageHour.requests
    few = case((requests.between(0, EVENTS_AT_ONCE), requests), else_=EVENTS_AT_ONCE)
    hours = select(hour, func.sum(few)).group_by(hour).order_by(hour)
    edges: list[datetime | None] = [None]
    count = 0
    for start, events in await connection.execute(hours):
        if count and count + events > EVENTS_AT_ONCE:
            edges.append(hour_of(start))
            count = 0
        count += int(events)
    return [Window(*window) for window in pairwise([*edges, None])]


def hour_text(moment: Any) -> Any:
    """Return the hour of a datetime as text, such as `2026-11-01 12:00:00.000000`."""
    return func.substr(cast(moment, String(26)), 1, 13) + literal(":00:00.000000")


def own_month(moment: Any) -> Any:
    """Return the month of a datetime as text, such as `2026-11`."""
    return func.substr(cast(moment, String(26)), 1, 7)
