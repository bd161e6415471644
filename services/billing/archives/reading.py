"""Reading single events of archived months.

A reader of events reads those in the database first, and lists the files afterwards.
Events are deleted after their files are recorded, so it misses no event; one that it finds in both
counts once.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from services.billing.archives.errors import DuckDbNotInstalled
from services.billing.archives.models import ArchivePart
from services.billing.archives.repository import list_parts
from services.billing.archives.store import NO_ARCHIVE, ArchiveStore, is_installed
from services.billing.event_places import EventPlace
from services.billing.models import UsageEvent
from services.common.db.database import Database

if TYPE_CHECKING:
    from services.billing.archives.parquet import Connection

_AT_ONCE = 2
"""Files that are fetched and searched at the same time, for all requests together."""
_ROWS_AT_ONCE = 2000

OLDEST_FIRST = "time, id, source"
NEWEST_FIRST = "time DESC, id DESC, source DESC"
AS_ACCEPTED = "account, received_at, time, id"


def place_of(event: UsageEvent) -> EventPlace:
    """Return the place of an event."""
    return EventPlace(event.time, event.id, event.source)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The events that match all of these."""

    account: str | None = None
    model: str | None = None
    version: str | None = None
    ids: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    after: EventPlace | None = None
    before: EventPlace | None = None
    through: EventPlace | None = None
    """Like `before`, but inclusive."""

    def condition(self) -> tuple[str, dict[str, Any]]:
        """Return SQL and its parameters."""
        from services.billing.archives.parquet import to_microseconds  # needs DuckDB

        terms: list[str] = ["true"]
        parameters: dict[str, Any] = {}
        for name in ("account", "model", "version"):
            if (value := getattr(self, name)) is not None:
                terms.append(f"{name} = ${name}")
                parameters[name] = value
        if self.ids is not None:
            terms.append("list_contains($ids, id)")
            parameters["ids"] = list(self.ids)
        for name, sign in (("since", ">="), ("until", "<")):
            if (moment := getattr(self, name)) is not None:
                terms.append(f"time {sign} make_timestamptz(${name}::BIGINT)")
                parameters[name] = to_microseconds(moment)
        for name, sign in (("after", ">"), ("before", "<"), ("through", "<=")):
            if (place := getattr(self, name)) is not None:
                time = f"make_timestamptz(${name}_time::BIGINT)"
                # The first term is all that lets DuckDB skip row groups.
                terms.append(f"time {sign.rstrip('=')}= {time}")
                terms.append(f"(time, id, source) {sign} ({time}, ${name}_id, ${name}_source)")
                parameters |= {
                    f"{name}_time": to_microseconds(place.time),
                    f"{name}_id": place.id,
                    f"{name}_source": place.source,
                }
        return " AND ".join(terms), parameters

    def window(self) -> tuple[datetime | None, datetime | None]:
        """Return from when and until when such events may be, both inclusive."""
        starts = [self.since, self.after and self.after.time]
        ends = [self.until, self.before and self.before.time, self.through and self.through.time]
        return (
            max((each for each in starts if each is not None), default=None),
            min((each for each in ends if each is not None), default=None),
        )


class Archives:
    """Reads archived events from their files, each of which is compared with its digest first.

    Raises:
        ArchiveDamaged: from every method, if a file is missing or has been changed.
        ArchiveUnreachable: the folder or bucket cannot be used.
        DuckDbNotInstalled: what reads archives is missing.
    """

    def __init__(self, store: ArchiveStore) -> None:
        self.store = store
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def list_first(
        self, database: Database, wanted: Wanted, *, limit: int, newest: bool = False
    ) -> list[UsageEvent]:
        """Return the first events in order of time, or the last ones."""
        since, until = wanted.window()
        async with database.snapshot() as session:
            parts = await list_parts(session, account=wanted.account, since=since, until=until)
        parts.sort(key=lambda part: part.last_time if newest else part.first_time, reverse=newest)
        found: list[UsageEvent] = []
        for part in parts:
            if len(found) >= limit and not _may_precede(part, found[-1], newest=newest):
                break
            found = merged(found, await self._search(part, wanted, limit, newest), newest=newest)
            del found[limit:]
        return found

    async def _search(
        self, part: ArchivePart, wanted: Wanted, limit: int, newest: bool
    ) -> list[UsageEvent]:
        async with self._places, self._opened([part]) as (connection, paths):
            return await asyncio.to_thread(
                lambda: list(
                    _read(
                        connection,
                        paths,
                        wanted,
                        order_by=NEWEST_FIRST if newest else OLDEST_FIRST,
                        limit=limit,
                    )
                )
            )

    async def stream(
        self, parts: Sequence[ArchivePart], wanted: Wanted, *, order_by: str
    ) -> AsyncIterator[list[UsageEvent]]:
        """Yield events of some files together, some at a time."""
        async with self._opened(parts) as (connection, paths):
            rows = _read(connection, paths, wanted, order_by=order_by)
            while page := await asyncio.to_thread(lambda: list(islice(rows, _ROWS_AT_ONCE))):
                yield page

    async def stream_each(
        self, parts: Sequence[ArchivePart], wanted: Wanted
    ) -> AsyncIterator[list[UsageEvent]]:
        """Yield events of some files, some at a time, file by file."""
        for part in parts:
            async for page in self.stream([part], wanted, order_by=OLDEST_FIRST):
                yield page

    async def check(
        self,
        database: Database,
        *,
        account: str,
        period: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        """Check the files that may have an account's events of a month or window.

        It is for a response that could not report a missing or damaged file once it has begun.
        """
        async with database.snapshot() as session:
            parts = await list_parts(
                session, account=account, period=period, since=since, until=until
            )
        for part in parts:
            async with self._places, self._opened([part]):
                pass

    @asynccontextmanager
    async def _opened(
        self, parts: Sequence[ArchivePart]
    ) -> AsyncIterator[tuple["Connection", list[Path]]]:
        """Fetch files into a temporary folder; yield where they are, and what reads them."""
        if not is_installed():
            raise DuckDbNotInstalled()
        # Large, and rarely used.
        from services.billing.archives.parquet import connect, translated_errors

        with translated_errors(), TemporaryDirectory(prefix="tollgate-archive-") as name:
            folder = Path(name)
            paths = [await asyncio.to_thread(self.store.fetch, part, folder) for part in parts]
            connection = await asyncio.to_thread(connect, folder)
            try:
                yield connection, paths
            finally:
                await asyncio.to_thread(connection.close)


NO_ARCHIVES = Archives(ArchiveStore(NO_ARCHIVE))
"""For a database without archived months; reading one fails."""


async def list_files(
    session: AsyncSession | AsyncConnection, *, period: str, account: str | None
) -> list[ArchivePart]:
    """Return the files of a month; none if it is not archived, or has no usage of the account."""
    return await list_parts(session, period=period, account=account)


async def find_files(
    session: AsyncSession, windows: Sequence[tuple[datetime, datetime]], *, account: str
) -> list[list[ArchivePart]]:
    """Return the files that may have an account's events of some windows, by window."""
    return [
        await list_parts(session, account=account, since=since, until=until)
        for since, until in windows
    ]


def merged(
    some: Sequence[UsageEvent], others: Sequence[UsageEvent], *, newest: bool = False
) -> list[UsageEvent]:
    """Return the events of two lists in order of time, each once."""
    by_place = {place_of(event): event for event in (*some, *others)}
    return [by_place[place] for place in sorted(by_place, reverse=newest)]


def _may_precede(part: ArchivePart, event: UsageEvent, *, newest: bool) -> bool:
    return part.last_time >= event.time if newest else part.first_time <= event.time


def _read(
    connection: "Connection",
    paths: Sequence[Path],
    wanted: Wanted,
    *,
    order_by: str,
    limit: int | None = None,
) -> Any:
    from services.billing.archives import parquet  # needs DuckDB

    where, parameters = wanted.condition()
    rows = parquet.read(
        connection, paths, where=where, parameters=parameters, order_by=order_by, limit=limit
    )
    for row in rows:
        for name in ("time", "received_at"):
            row[name] = parquet.from_microseconds(row[name])
        yield UsageEvent(**row)


async def _archives(request: Request) -> Archives:
    archives: Archives = request.app.state.archives
    return archives


AppArchives = Annotated[Archives, Depends(_archives)]
