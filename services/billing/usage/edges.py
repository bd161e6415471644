"""The first and last hour of a window of usage, whose events are counted one by one.

Those of archived months are in files, and are read separately.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.archives.reading import Archives, Wanted, find_files
from services.billing.models import UsageEvent
from services.billing.usage.sums import HOUR, hour_of, tag_of
from services.common.db.database import Database
from services.common.errors import Unavailable

T = TypeVar("T")

_ATTEMPTS = 5


def hour_edges(since: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """Return the parts of the first and the last hour that are outside of a window."""
    edges = [(hour_of(since), since), (until, hour_of(until) + HOUR)]
    return [(start, end) for start, end in edges if start < end]


async def read_settled(
    session: AsyncSession,
    windows: Sequence[tuple[datetime, datetime]],
    account: str,
    read: Callable[[], Awaitable[T]],
) -> T:
    """Read events that are not archived; again if some were archived meanwhile.

    Raises:
        Unavailable: that happened again and again.
    """
    before = await find_files(session, windows, account=account)
    for _ in range(_ATTEMPTS):
        found = await read()
        after = await find_files(session, windows, account=account)
        if after == before:
            return found
        before = after
    raise Unavailable("Months are being archived; retry in 1 s.")


async def list_archived(
    database: Database,
    archives: Archives,
    *,
    account: str,
    windows: Sequence[tuple[datetime, datetime]],
) -> AsyncIterator[UsageEvent]:
    """Yield an account's archived events of some half-open windows."""
    for since, until in windows:
        wanted = Wanted(account=account, since=since, until=until)
        async for page in archives.stream_all(database, wanted):
            for event in page:
                yield event


def value_of(event: UsageEvent, dimension: str) -> str | None:
    """Return an event's value in a dimension, if it has one."""
    if dimension == "version":
        return event.version
    if dimension == "api_key":
        return event.api_key
    tags: dict[str, str] = orjson.loads(event.tags or "{}")
    return tags.get(tag_of(dimension))
