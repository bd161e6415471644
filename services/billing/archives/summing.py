"""Sums of archived events, and where they differ from sums in the database.

They are kept in a temporary DuckDB database, file by file, so memory stays flat. Methods that are
not asynchronous block.
"""

import asyncio
from collections.abc import AsyncIterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from services.billing.archives import parquet
from services.billing.archives.comparing import REVERSED, SUMS, Difference, Stored

_ROWS_AT_ONCE = 10_000
_KEYS = {
    "period": "period",
    "account": "account",
    "hour": "strftime(time, '%Y-%m-%d %H')",
    "model": "model",
    "version": "version",
    "price_id": "price_id",
    "api_key": "api_key",
    "tags": "tags",
    "journal": "journal",
    "entry_id": "coalesce(entry_id, 0)",
}
_AMOUNT = "amount_high::HUGEINT * 9223372036854775808 + amount_low"


class EventSums:
    """The sums of some files' events, by all that stored sums are kept by.

    Args:
        folder: a temporary folder.
    """

    def __init__(self, folder: Path) -> None:
        self._connection = parquet.connect(folder, file="sums.duckdb")
        keys = ", ".join(f"{name} VARCHAR" for name in _KEYS)
        sums = ", ".join(f"{name} HUGEINT" for name in SUMS)
        self._connection.execute(f"CREATE TABLE sums ({keys}, {sums})")
        self._connection.execute("CREATE TABLE reversals (id VARCHAR, source VARCHAR)")
        self._connection.execute(
            f"CREATE TABLE {REVERSED} (id VARCHAR, source VARCHAR, account VARCHAR,"
            " period VARCHAR, model VARCHAR, price_id VARCHAR, amount HUGEINT)"
        )

    def close(self) -> None:
        self._connection.close()

    async def add_reversals(self, reversals: AsyncIterable[tuple[str, str]]) -> None:
        """Take note of the id and source of events that were taken back, before adding files."""
        await self._insert("reversals", ((each, ()) async for each in reversals), width=(2, 0))

    def add(self, file: Path) -> tuple[int, datetime, datetime]:
        """Add the events of a file; return how many those are, and their first and last time."""
        keys = ", ".join(f"{key} AS {name}" for name, key in _KEYS.items())
        self._connection.execute(
            f"INSERT INTO sums SELECT {keys}, count(*), sum(rows), sum({_AMOUNT})"  # noqa: S608
            f" FROM {parquet.source([file])} AS event GROUP BY ALL"
        )
        self._connection.execute(
            f"INSERT INTO {REVERSED} SELECT id, source, account, period, model, price_id, {_AMOUNT}"  # noqa: S608
            f" FROM {parquet.source([file])} AS event SEMI JOIN reversals USING (id, source)"
        )
        counted = self._connection.execute(
            "SELECT count(*), epoch_us(min(time)), epoch_us(max(time))"  # noqa: S608
            f" FROM {parquet.source([file])} AS event"
        )
        count, first, last = counted.fetchone() or (0, 0, 0)
        return count, parquet.from_microseconds(first), parquet.from_microseconds(last)

    def identities(self, file: Path) -> "parquet.Connection":
        """Return the id, source and account of a file's events, to be fetched."""
        return self._connection.cursor().execute(
            f"SELECT id, source, account FROM {parquet.source([file])} AS event"  # noqa: S608
        )

    def total(self) -> tuple[int, int, int]:
        """Return the requests, rows and amount of all events."""
        found = self._connection.execute(
            f"SELECT {', '.join(f'coalesce(sum({name}), 0)::VARCHAR' for name in SUMS)} FROM sums"  # noqa: S608
        ).fetchone()
        requests, rows, amount = map(int, found or ())
        return requests, rows, amount

    def amounts(
        self, keys: Sequence[str], parameters: Mapping[str, object]
    ) -> "parquet.Connection":
        """Return keys, given as SQL, and what their events cost as text, to be fetched."""
        return self._connection.cursor().execute(
            f"SELECT {', '.join(keys)}, sum(amount)::VARCHAR FROM sums GROUP BY ALL",  # noqa: S608
            dict(parameters),
        )

    def has_unposted(self) -> bool:
        """Return whether events that cost something have no ledger entry."""
        found = self._connection.execute(
            "SELECT 1 FROM sums WHERE entry_id = '0' AND amount <> 0 LIMIT 1"
        )
        return found.fetchone() is not None

    async def compare(
        self,
        stored: AsyncIterable[Stored],
        *,
        keys: Sequence[str],
        sums: Sequence[str],
        source: str = "sums",
        parameters: Mapping[str, object] | None = None,
    ) -> list[Difference]:
        """Return where stored sums differ from those of the events, in order of their keys.

        Args:
            stored: keys, with what is stored under them; a key may come more than once.
            keys: SQL of each key.
            sums: SQL of each sum, which is added up by key.
            source: SQL of what `keys` and `sums` are columns of.
        """
        width = (len(keys), len(sums))
        await asyncio.to_thread(self._begin, *width)
        await self._insert("stored", stored, width=width)
        return await asyncio.to_thread(self._differences, keys, sums, source, parameters or {})

    def _begin(self, keys: int, sums: int) -> None:
        columns = [f"key_{n} VARCHAR" for n in range(keys)]
        columns += [f"sum_{n} HUGEINT" for n in range(sums)]
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE stored ({', '.join(columns)})")

    async def _insert(
        self, table: str, rows: AsyncIterable[Stored], *, width: tuple[int, int]
    ) -> None:
        waiting: list[Stored] = []
        async for row in rows:
            waiting.append(row)
            if len(waiting) == _ROWS_AT_ONCE:
                await asyncio.to_thread(self._insert_some, table, waiting, *width)
                waiting = []
        if waiting:
            await asyncio.to_thread(self._insert_some, table, waiting, *width)

    def _insert_some(self, table: str, rows: Sequence[Stored], keys: int, sums: int) -> None:
        texts = [[key[n] for key, _ in rows] for n in range(keys)]
        texts += [[str(each[n]) for _, each in rows] for n in range(sums)]
        fields = [f"unnest(${n}::VARCHAR[])" for n in range(1, keys + 1)]
        fields += [f"unnest(${n}::VARCHAR[])::HUGEINT" for n in range(keys + 1, len(texts) + 1)]
        self._connection.execute(
            f"INSERT INTO {table} SELECT {', '.join(fields)}",
            texts,
        )

    def _differences(
        self,
        keys: Sequence[str],
        sums: Sequence[str],
        source: str,
        parameters: Mapping[str, object],
    ) -> list[Difference]:
        names = [f"key_{n}" for n in range(len(keys))]
        values = [f"sum_{n}" for n in range(len(sums))]
        counted = [f"({key})::VARCHAR AS {name}" for key, name in zip(keys, names, strict=True)]
        counted += [f"-sum({each}) AS {name}" for each, name in zip(sums, values, strict=True)]
        total = [*names, *(f"sum({name})::HUGEINT AS {name}" for name in values)]
        shown = [*names, *(f"{name}::VARCHAR" for name in values)]
        is_different = " OR ".join(f"{name} <> 0" for name in values)
        both = f"FROM stored UNION ALL SELECT {', '.join(counted)} FROM {source} GROUP BY ALL"  # noqa: S608
        found = self._connection.execute(
            f"SELECT {', '.join(shown)} FROM (SELECT {', '.join(total)} FROM ({both}) GROUP BY ALL)"  # noqa: S608
            f" WHERE {is_different} ORDER BY {', '.join(names)}",
            dict(parameters),
        )
        return [
            Difference(row[: len(keys)], tuple(map(int, row[len(keys) :])))
            for row in found.fetchall()
        ]
