"""The first and last hour of a window of usage, whose events are counted one by one.

Those of archived months are in files, and are read separately.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.archives.models import ArchivePart
from services.billing.archives.reading import Archives, Wanted, find_files
from services.billing.models import UsageEvent
from services.billing.usage.sums import HOUR, hour_of, tag_of
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
) -> tuple[T, list[list[ArchivePart]]]:
    """Read events that are not archived; again if some were archived meanwhile.

    Returns:
        What was read, and the files with the other events, by window.

    Raises:
        Unavailable: that happened each time.
    """
    before = await find_files(session, windows, account=account)
    for _ in range(_ATTEMPTS):
        found = await read()
        after = await find_files(session, windows, account=account)
        if _names(after) == _names(before):
            return found, after
        before = after
    raise Unavailable("Months are being archived; retry in 1 s.")


def _names(files: Sequence[Sequence[ArchivePart]]) -> list[str]:
    return [part.name for parts in files for part in parts]


async def list_archived(
    archives: Archives,
    files: Sequence[Sequence[ArchivePart]],
    *,
    account: str,
    windows: Sequence[tuple[datetime, datetime]],
) -> AsyncIterator[UsageEvent]:
    """Yield an account's archived events of some half-open windows.

    Args:
        files: those with the events, by window. A month that is archived after they were listed has
            been read from the database.
    """
    for (since, until), parts in zip(windows, files, strict=True):
        wanted = Wanted(account=account, since=since, until=until)
        async for page in archives.stream_each(parts, wanted):
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
