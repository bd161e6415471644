"""Archiving a month: its events move from the database into files, which then count instead.

A run can be killed at any moment and repeated. It first writes the files, under names of its own,
reads them back, and compares them with the month's invoices. Then one transaction records them:
until it commits, the events in the database count, and afterwards the files. Only then are the
events deleted, some at a time. Of two runs at once, the first to record its files wins.

The identities of events stay, so that a repeat of an archived event is a duplicate as before.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from pydantic import BaseModel
from sqlalchemy import text

from services.billing import amounts
from services.billing.archives import repository
from services.billing.archives.errors import (
    ArchiveBusy,
    ArchiveDamaged,
    DuckDbNotInstalled,
    NotArchivable,
)
from services.billing.archives.models import Archive, ArchivePart
from services.billing.archives.store import NO_ARCHIVE, ArchiveStore, is_installed
from services.billing.database import long_snapshot
from services.billing.periods import next_period, period_of, start_of
from services.common.contracts import format_amount
from services.common.db.database import Database
from services.common.db.retrying import in_transaction

if TYPE_CHECKING:
    from services.billing.archives.parquet import PartWriter
    from services.billing.archives.summing import EventSums

PART_EVENTS = 100_000
"""Events of a file: about 10 MB, which is in memory as a whole."""
PAGE_EVENTS = 2000
DELETED_AT_ONCE = 2000
"""Events that one transaction deletes."""
LOCK_WAIT_S = 2
"""How long the server may take to notice that the process with the lock has ended."""
_LOCK_NAME = "CONCAT('tollgate_archive:', LEFT(SHA2(DATABASE(), 256), 32))"
"""At most 64 characters, for a database of any name; MySQL 9 no longer has MD5."""

OnProgress = Callable[[str, int], None]
"""Called with a step (`written`, `compared`, `recorded`, `deleted`) and its events so far."""


class ArchiveRead(BaseModel):
    """An archived month."""

    period: str
    requests: int
    rows: int
    amount: str
    files: int
    bytes: int
    archived_at: datetime


def last_due(*, keep_months: int, now: datetime) -> str:
    """Return the last month whose events need not stay in the database.

    Args:
        keep_months: for how many months after its end they stay.
    """
    utc = now.astimezone(UTC)
    months = utc.year * 12 + utc.month - 1 - keep_months - 1
    return f"{months // 12:04d}-{months % 12 + 1:02d}"


async def archive(
    database: Database,
    store: ArchiveStore,
    *,
    period: str,
    keep_months: int | None,
    now: datetime,
    on_progress: OnProgress = lambda step, events: None,
) -> ArchiveRead:
    """Archive a month, or go on with it; a repeat changes nothing.

    Args:
        keep_months: for how many months after its end a month must stay; None does not restrict it.

    Raises:
        ArchiveBusy: another process is archiving.
        NotArchivable: the month must stay, is not invoiced, or its events and invoices differ.
        ArchiveUnreachable: the files cannot be written.
        Unavailable: the database is unavailable; repeat it.
    """
    if not is_installed():
        raise DuckDbNotInstalled()
    if store.url == NO_ARCHIVE:
        raise NotArchivable("BILLING_ARCHIVE is 'none'; set it to a bucket or a lasting folder.")
    async with _only_one(database):
        if not await _is_recorded(database, period=period):
            await _check(database, period=period, keep_months=keep_months, now=now)
            try:
                await _copy(database, store, period=period, now=now, on_progress=on_progress)
            except (ArchiveDamaged, NotArchivable):
                # Another run may have recorded its files, and be deleting events and these files.
                if not await _is_recorded(database, period=period):
                    raise
        async with database.snapshot() as session:
            stored = await session.get_one(Archive, period)
            parts = await repository.list_parts(session, period=period)
        if stored.dropped_at is None:
            await _drop(database, period=period, now=now, on_progress=on_progress)
    return ArchiveRead(
        period=period,
        requests=stored.requests,
        rows=stored.rows,
        amount=format_amount(stored.amount),
        files=len(parts),
        bytes=stored.bytes,
        archived_at=stored.archived_at,
    )


async def _is_recorded(database: Database, *, period: str) -> bool:
    async with database.snapshot() as session:
        return await repository.find_archive(session, period=period) is not None


@asynccontextmanager
async def _only_one(database: Database) -> AsyncIterator[None]:
    """Let no other process archive meanwhile, which would do the same work for nothing.

    The lock ends with its connection, so with a killed process. SQLite has no such lock.

    Raises:
        ArchiveBusy: another process is archiving.
    """
    if database.engine.dialect.name != "mysql":
        yield
        return
    async with database.engine.connect() as connection:
        try:
            taken = await connection.scalar(
                text(f"SELECT GET_LOCK({_LOCK_NAME}, :seconds)"), {"seconds": LOCK_WAIT_S}
            )
            await connection.commit()
            if taken != 1:
                raise ArchiveBusy()
            yield
        finally:
            await connection.invalidate()


async def _check(
    database: Database, *, period: str, keep_months: int | None, now: datetime
) -> None:
    """Check that a month may be archived.

    Raises:
        NotArchivable: it may not.
    """
    if now < start_of(next_period(period)):
        raise NotArchivable(f"{period} is not over yet.")
    if keep_months is not None and period > last_due(keep_months=keep_months, now=now):
        raise NotArchivable(
            f"{period} must stay in the database: BILLING_RETENTION_MONTHS is {keep_months}, and "
            f"it is {period_of(now)}."
        )
    async with database.snapshot() as session:
        month = await repository.find_period(session, period=period)
        is_pending = await repository.has_pending_recalls(session, period=period)
    if month is None or month.closed_at is None:
        raise NotArchivable(f"{period} is not closed; run `tollgate billing close {period}` first.")
    if month.invoiced_at is None:
        raise NotArchivable(
            f"Not all invoices of {period} are issued; repeat `tollgate billing close {period}`."
        )
    if is_pending:
        raise NotArchivable(f"Recalled usage of {period} is being taken back; try again later.")


# -- writing -------------------------------------------------------------------------------------


class _Written(NamedTuple):
    """The files of a run, and the sums of their events."""

    parts: list[ArchivePart]
    sums: tuple[int, int, int]


async def _copy(
    database: Database,
    store: ArchiveStore,
    *,
    period: str,
    now: datetime,
    on_progress: OnProgress,
) -> None:
    """Copy a month's events into files, and record those."""
    from services.billing.archives.parquet import translated_errors  # needs DuckDB
    from services.billing.archives.summing import EventSums  # needs DuckDB

    with translated_errors(), TemporaryDirectory(prefix="tollgate-archive-") as name:
        folder = Path(name)
        sums = await asyncio.to_thread(EventSums, folder)
        try:
            parts = [
                part
                async for part in _write(
                    database, store, sums, period=period, folder=folder, on_progress=on_progress
                )
            ]
            await _compare(database, sums, period=period)
            total = await asyncio.to_thread(sums.total)
        finally:
            await asyncio.to_thread(sums.close)
    on_progress("compared", total[0])
    await _record(database, _Written(parts, total), period=period, now=now)
    on_progress("recorded", total[0])


async def _write(
    database: Database,
    store: ArchiveStore,
    sums: "EventSums",
    *,
    period: str,
    folder: Path,
    on_progress: OnProgress,
) -> AsyncIterator[ArchivePart]:
    """Write a month's events; yield each file after reading it back."""
    from services.billing.archives.parquet import PartWriter  # needs DuckDB

    run = uuid4().hex[:12]
    count = number = 0
    writer = await asyncio.to_thread(PartWriter, folder)
    try:
        async for page in _pages(database, period=period):
            await asyncio.to_thread(writer.add, page)
            count += len(page)
            if writer.events >= PART_EVENTS:
                number += 1
                yield await _write_part(store, writer, sums, _Name(period, run, number), folder)
                on_progress("written", count)
        if writer.events:
            number += 1
            yield await _write_part(store, writer, sums, _Name(period, run, number), folder)
            on_progress("written", count)
    finally:
        await asyncio.to_thread(writer.close)


class _Name(NamedTuple):
    period: str
    run: str
    """Random, so that no other run's file has the same name."""
    number: int

    def __str__(self) -> str:
        return f"{self.run}-{self.number:05d}.parquet"


async def _pages(database: Database, *, period: str) -> AsyncIterator[list[str]]:
    """Yield a month's events, each as one text: its own, then late ones of earlier months."""
    from services.billing.archives.parquet import COLUMNS  # needs DuckDB

    for list_page in (repository.list_own, repository.list_late):
        after: repository.PageEnd | None = None
        is_first = True
        while is_first or after is not None:
            is_first = False
            async with database.snapshot() as session:
                page, after = await list_page(
                    session, period=period, columns=list(COLUMNS), after=after, limit=PAGE_EVENTS
                )
            if page:
                yield page


async def _write_part(
    store: ArchiveStore, writer: "PartWriter", sums: "EventSums", name: _Name, folder: Path
) -> ArchivePart:
    """Write what was collected as a file, and read it back."""

    def write() -> ArchivePart:
        first, last = writer.times()
        events = writer.events
        content = writer.write()
        store.create(name.period, str(name), content)
        part = ArchivePart(
            period=name.period,
            part=name.number,
            name=str(name),
            requests=events,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            first_time=first,
            last_time=last,
        )
        path = store.fetch(part, folder)
        sums.add(path)
        path.unlink()
        return part

    return await asyncio.to_thread(write)


async def _compare(database: Database, sums: "EventSums", *, period: str) -> None:
    """Compare the events in the files with the month's invoices, to the last 10⁻⁹.

    Raises:
        NotArchivable: they differ.
    """
    async with long_snapshot(database) as connection:
        found = await sums.compare(
            repository.stream_lines(connection, period=period),
            keys=("account", "model", "price_id"),
            sums=("requests", "rows", "amount"),
        )
    problem = None
    if found:
        account, model, _ = found[0].key
        problem = f"account {account}, model {model}: usage events and invoice lines differ"
    elif await asyncio.to_thread(sums.has_unposted):
        problem = "events of a version before the ledger are not in it"
    if problem is not None:
        raise NotArchivable(
            f"{period} cannot be archived: {problem}; see `tollgate billing verify`."
        )


async def _record(database: Database, written: _Written, *, period: str, now: datetime) -> None:
    """Record the files of a month, unless another run did so just now."""
    requests, rows, amount = written.sums
    archive: dict[str, Any] = {
        "period": period,
        "requests": requests,
        "rows": rows,
        **amounts.columns("amount", amount),
        "bytes": sum(part.bytes for part in written.parts),
        "archived_at": now,
    }
    names = [column.key for column in ArchivePart.__table__.columns]
    parts = [{name: getattr(part, name) for name in names} for part in written.parts]

    async def record(session: Any) -> None:
        if await repository.find_archive(session, period=period) is None:
            await repository.add_archive(session, archive=archive, parts=parts)

    await in_transaction(database, record)


# -- deleting ------------------------------------------------------------------------------------


async def _drop(database: Database, *, period: str, now: datetime, on_progress: OnProgress) -> None:
    """Delete the events of a month that is recorded."""
    count = 0
    since: datetime | None = start_of(period)
    while since is not None:
        deleted, since = await in_transaction(
            database,
            lambda session, since=since: repository.delete_own(  # type: ignore[misc]
                session, period=period, since=since, limit=DELETED_AT_ONCE
            ),
        )
        count += deleted
        on_progress("deleted", count)
    is_more = True
    while is_more:
        deleted = await in_transaction(
            database,
            lambda session: repository.delete_late(session, period=period, limit=DELETED_AT_ONCE),
        )
        count += deleted
        is_more = deleted > 0
        on_progress("deleted", count)
    await in_transaction(
        database, lambda session: repository.mark_dropped(session, period=period, now=now)
    )
