"""What verifying needs of archives: that they are unchanged, and what their events add up to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.amounts import join, labelled
from services.billing.archives import repository
from services.billing.archives.comparing import REVERSED, SUMS, Difference, Stored
from services.billing.archives.errors import ArchiveDamaged, DuckDbNotInstalled
from services.billing.archives.models import Archive, ArchivePart
from services.billing.archives.store import ArchiveStore, is_installed
from services.billing.corrections.models import EventReversal
from services.billing.fingerprints import Weights
from services.billing.invoices.models import ReversedLine
from services.billing.models import EventKey, Plan, Price
from services.common.contracts import format_amount

if TYPE_CHECKING:
    from services.billing.archives.summing import EventSums

_IDS_AT_ONCE = 1000
_ROWS_AT_ONCE = 10_000


class ArchivedEvents:
    """The events of archived months, if there are any, and what is wrong with their files."""

    def __init__(self, sums: "EventSums | None", *, prepaid: Sequence[str] = ()) -> None:
        self.problems: list[str] = []
        self.identities = 0
        """The fingerprint of their ids and sources."""
        self._sums = sums
        self._prepaid = prepaid

    async def differences(
        self,
        connection: AsyncConnection,
        stored: Select[Any],
        *,
        keys: Mapping[str, str],
        sums: Mapping[str, str],
        source: str = "sums",
    ) -> list[Difference]:
        """Return where sums of the database differ from the archived events.

        Args:
            stored: selects where stored sums differ from the events in the database.
            keys: the columns of its keys, and SQL for them in the archive.
            sums: the names of its exact sums, and SQL of those of archived events.
            source: what that SQL is about; `$prepaid` are the ids of prepaid prices.
        """

        async def rows() -> AsyncIterator[Stored]:
            async for row in await connection.stream(stored):
                key = tuple(str(row._mapping[name]) for name in keys)
                yield key, tuple(labelled(row, name).value() for name in sums)

        return await self.compare(
            rows(), keys=[*keys.values()], sums=[*sums.values()], source=source
        )

    async def compare(
        self,
        stored: AsyncIterable[Stored],
        *,
        keys: Sequence[str],
        sums: Sequence[str],
        source: str,
    ) -> list[Difference]:
        """Compare as `EventSums.compare` does; without archives, return all stored sums."""
        if self._sums is None:
            return [Difference(tuple(key), tuple(each)) async for key, each in stored]
        return await self._sums.compare(
            stored, keys=keys, sums=sums, source=source, parameters=self._parameters(*keys, source)
        )

    def _parameters(self, *texts: str) -> dict[str, object]:
        return {"prepaid": self._prepaid} if "$prepaid" in "".join(texts) else {}

    async def amounts(self, keys: Sequence[str]) -> AsyncIterator[tuple[tuple[str, ...], int]]:
        """Yield what archived events cost, by keys given as SQL."""
        if self._sums is not None:
            rows = await asyncio.to_thread(self._sums.amounts, keys, self._parameters(*keys))
            while some := await asyncio.to_thread(rows.fetchmany, _ROWS_AT_ONCE):
                for *key, amount in some:
                    yield tuple(key), int(amount)

    async def paid(
        self, reservations: AsyncIterable[tuple[str, str]]
    ) -> Mapping[tuple[str, str], int]:
        """Return what archived events paid from reservations, given by account and journal."""
        if self._sums is None:
            return {}

        async def rows() -> AsyncIterator[Stored]:
            async for key in reservations:
                yield key, (0,)

        found = await self.compare(
            rows(),
            keys=("account", "journal"),
            sums=("amount",),
            source="sums WHERE list_contains($prepaid, price_id)"
            " AND (account, journal) IN (SELECT (key_0, key_1) FROM stored)",
        )
        return {(account, journal): -more for (account, journal), (more,) in found}


NO_ARCHIVED_EVENTS = ArchivedEvents(None)


@asynccontextmanager
async def open_archived(
    connection: AsyncConnection, store: ArchiveStore, weights: Weights | None
) -> AsyncIterator[ArchivedEvents]:
    """Read the files of all archived months, one at a time; yield what verifying needs of them.

    Args:
        weights: those of fingerprints, on databases that have them.

    Raises:
        ArchiveUnreachable: the folder or bucket cannot be used.
        DuckDbNotInstalled: what reads archives is missing.
    """
    parts = await repository.list_parts(connection)
    archives = list((await connection.execute(select(*Archive.__table__.columns))).mappings())
    if not parts:
        none = ArchivedEvents(None)
        none.problems = [_lost(row["period"]) for row in archives if row["requests"]]
        yield none
        return
    if not is_installed():
        raise DuckDbNotInstalled()
    from services.billing.archives.parquet import translated_errors  # needs DuckDB
    from services.billing.archives.summing import EventSums  # needs DuckDB

    with translated_errors(), TemporaryDirectory(prefix="tollgate-verify-") as name:
        folder = Path(name)
        sums = await asyncio.to_thread(EventSums, folder)
        try:
            await sums.add_reversals(_reversals(connection))
            archived = ArchivedEvents(sums, prepaid=await find_prepaid_prices(connection))
            missing: Counter[str] = Counter()
            for part in parts:
                try:
                    path = await asyncio.to_thread(store.fetch, part, folder)
                except ArchiveDamaged as error:
                    archived.problems.append(f"archives: {error.sentence}")
                    continue
                archived.problems += await asyncio.to_thread(_check_part, sums, part, path)
                missing += await _without_identity(connection, sums, path)
                if weights is not None:
                    archived.identities += await asyncio.to_thread(_identities, sums, path, weights)
                await asyncio.to_thread(path.unlink)
            if not archived.problems:
                archived.problems += await _check_months(sums, archives, parts)
            archived.problems += [
                f"usage_event_keys: account {account}: {count} archived events have no identity"
                for account, count in sorted(missing.items())
            ]
            yield archived
        finally:
            await asyncio.to_thread(sums.close)


def _lost(period: str) -> str:
    return f"archives: {period}: the list of its files is incomplete"


async def find_prepaid_prices(connection: AsyncConnection) -> list[str]:
    """Return the ids of all prepaid prices."""
    found = await connection.execute(
        select(Price.id).join(Plan, Plan.id == Price.plan_id).where(Plan.billing == "prepaid")
    )
    return list(found.scalars())


async def _reversals(connection: AsyncConnection) -> AsyncIterator[tuple[str, str]]:
    async for row in await connection.stream(select(EventReversal.id, EventReversal.source)):
        yield row.id, row.source


def _check_part(sums: "EventSums", part: ArchivePart, path: Path) -> list[str]:
    """Add a file; report where it differs from what is recorded of it besides its digest."""
    counted = sums.add(path)
    recorded = (part.requests, part.first_time, part.last_time, part.bytes)
    if recorded == (*counted, path.stat().st_size):
        return []
    return [f"archives: {part.period}, file {part.part}: differs from what is recorded of it"]


async def _check_months(
    sums: "EventSums", archives: Sequence[Any], parts: Sequence[ArchivePart]
) -> list[str]:
    """Check that each month's recorded sums match its files."""

    async def rows() -> AsyncIterator[Stored]:
        for row in archives:
            amount = join(row["amount_high"], row["amount"])
            if row["requests"]:
                yield (row["period"],), (row["requests"], row["rows"], amount)

    size: Counter[str] = Counter({row["period"]: row["bytes"] for row in archives})
    last: Counter[str] = Counter()
    incomplete: set[str] = set()
    for part in parts:
        size[part.period] -= part.bytes
        if part.part != last[part.period] + 1:
            incomplete.add(part.period)
        last[part.period] = part.part
    incomplete |= {period for period, more in size.items() if more}
    found = await sums.compare(rows(), keys=("period",), sums=SUMS)
    return [
        *(
            f"archives: {period}: differs from its files (requests: {requests}, rows: {rows}, "
            f"amount: {format_amount(amount)})"
            for (period,), (requests, rows, amount) in found
        ),
        *map(_lost, sorted(incomplete)),
    ]


async def _without_identity(
    connection: AsyncConnection, sums: "EventSums", path: Path
) -> Counter[str]:
    """Return how many events of a file would look new if they came again, by account."""
    missing: Counter[str] = Counter()
    rows = await asyncio.to_thread(sums.identities, path)
    while some := await asyncio.to_thread(rows.fetchmany, _IDS_AT_ONCE):
        found = await connection.execute(
            select(EventKey.id, EventKey.source).where(EventKey.id.in_([row[0] for row in some]))
        )
        known = {(row.id, row.source) for row in found}
        missing.update(account for id, source, account in some if (id, source) not in known)
    return missing


def _identities(sums: "EventSums", path: Path, weights: Weights) -> int:
    """Return the fingerprint of the ids and sources of a file's events."""
    rows = sums.identities(path)
    total = 0
    while some := rows.fetchmany(_ROWS_AT_ONCE):
        total += sum(weights.value(id, source) for id, source, _ in some)
    return total


async def check_reversals(
    connection: AsyncConnection, archived: ArchivedEvents, stored: Select[Any]
) -> list[Difference]:
    """Return the reversals that are not of archived events.

    Args:
        stored: selects the reversals without an event in the database.
    """

    async def rows() -> AsyncIterator[Stored]:
        async for row in await connection.stream(stored):
            key = (row.id, row.source, row.account)
            yield key, (1, join(row.amount_high, row.amount))

    return await archived.compare(
        rows(), keys=("id", "source", "account"), sums=("1", "amount"), source=REVERSED
    )


async def check_reversed_lines(
    connection: AsyncConnection, archived: ArchivedEvents
) -> list[Difference]:
    """Return where sums of what was taken back of archived months differ from their events."""
    line = ReversedLine

    async def rows() -> AsyncIterator[Stored]:
        found = select(
            line.account, line.period, line.model, line.price_id, line.amount_high, line.amount_low
        ).where(line.period.in_(select(Archive.period)))
        async for row in await connection.stream(found):
            amount = join(row.amount_high, row.amount)
            yield (row.account, row.period, row.model, row.price_id), (amount,)

    return await archived.compare(
        rows(),
        keys=("account", "period", "model", "price_id"),
        sums=("amount",),
        source=REVERSED,
    )
