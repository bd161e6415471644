"""Usage events as Parquet, written and read by DuckDB (the extra `billing-archive`). Blocking.

A file is sorted by account and then by time, in small row groups: a reader skips those without the
account or the time that it looks for.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import structlog

from services.billing.archives.errors import ArchiveUnreachable
from services.billing.models import UsageEvent

log = structlog.get_logger()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {"time": "TIMESTAMPTZ", "received_at": "TIMESTAMPTZ", "late": "BOOLEAN"} | dict.fromkeys(
    ("rows", "amount_high", "amount_low", "sequence", "entry_id"), "BIGINT"
)
COLUMNS: Mapping[str, str] = {
    attribute.key: _TYPES.get(attribute.key, "VARCHAR")
    for attribute in UsageEvent.__mapper__.column_attrs
}
"""The columns of a file, which are those of `usage_events`, and their types."""
_GROUP_EVENTS = 20_480
"""Events of a row group: a multiple of DuckDB's unit of 2048."""
_MEMORY = "128MB"
"""What a connection may use before it writes to its temporary folder."""
_ROWS_AT_ONCE = 2000

Connection = duckdb.DuckDBPyConnection


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise DuckDB's failures, such as a full disk, as what they mean to callers.

    Raises:
        ArchiveUnreachable: the work cannot be done right now.
    """
    try:
        yield
    except (duckdb.Error, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        log.error("archive_work_failed", error=type(error).__name__, reason=reason)
        raise ArchiveUnreachable("Archived events cannot be processed right now.") from error


def connect(folder: Path, *, file: str = ":memory:") -> Connection:
    """Open a DuckDB database that uses little memory, and a temporary folder for the rest.

    It loads no extension and reads no file outside of the folder.
    """
    config: dict[str, Any] = {
        "threads": 2,
        "memory_limit": _MEMORY,
        "temp_directory": str(folder / "spilled"),
        "autoinstall_known_extensions": False,
        "TimeZone": "UTC",
    }
    return duckdb.connect(file if file == ":memory:" else str(folder / file), config=config)


class PartWriter:
    """Collects events, and writes them as a file.

    Args:
        folder: a temporary folder for the file and for what exceeds the memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection = connect(folder)
        self._begin()

    def _begin(self) -> None:
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        self._connection.execute(f"CREATE OR REPLACE TABLE events ({columns})")
        self.events = 0

    def add(self, packed: Sequence[str]) -> None:
        """Add events, each as one text of all columns, in which a null is empty."""
        values = ", ".join(
            f"CAST(nullif(fields[{number}], '') AS {kind})"
            for number, kind in enumerate(COLUMNS.values(), start=1)
        )
        self._connection.execute(
            f"INSERT INTO events SELECT {values} FROM"  # noqa: S608 - names of columns
            " (SELECT string_split(unnest($1::VARCHAR[]), chr(9)) AS fields)",
            [list(packed)],
        )
        self.events += len(packed)

    def times(self) -> tuple[datetime, datetime]:
        """Return the time of the first and of the last event; there is at least one."""
        found = self._connection.execute(
            "SELECT epoch_us(min(time)), epoch_us(max(time)) FROM events"
        )
        first, last = found.fetchone() or (0, 0)
        return from_microseconds(first), from_microseconds(last)

    def write(self) -> bytes:
        """Return the file of all events so far, and begin the next one."""
        path = self._folder / "part.parquet"
        self._connection.execute(
            "COPY (FROM events ORDER BY account, time, id, source)"
            f" TO '{_quoted(path)}' (FORMAT parquet, COMPRESSION zstd,"
            f" ROW_GROUP_SIZE {_GROUP_EVENTS})"
        )
        self._begin()
        content = path.read_bytes()
        path.unlink()
        return content

    def close(self) -> None:
        self._connection.close()


def read(
    connection: Connection,
    paths: Sequence[Path],
    *,
    where: str,
    parameters: Mapping[str, Any],
    order_by: str,
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield events of files as columns by name; times are in microseconds since 1970.

    Args:
        where: SQL in which `$name` is a parameter.
    """
    columns = ", ".join(
        f"epoch_us({name}) AS {name}" if kind == "TIMESTAMPTZ" else name
        for name, kind in COLUMNS.items()
    )
    found = connection.execute(
        f"SELECT {columns} FROM {source(paths)} AS event WHERE {where} ORDER BY {order_by}"  # noqa: S608
        + (f" LIMIT {limit}" if limit is not None else ""),
        dict(parameters),
    )
    while rows := found.fetchmany(_ROWS_AT_ONCE):
        for row in rows:
            yield dict(zip(COLUMNS, row, strict=True))


def from_microseconds(count: int) -> datetime:
    """Return the moment that is so many microseconds after the start of 1970."""
    return _EPOCH + timedelta(microseconds=count)


def to_microseconds(moment: datetime) -> int:
    """Return how many microseconds after the start of 1970 an aware datetime is."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def source(paths: Sequence[Path]) -> str:
    """Return the SQL that names files as one table."""
    names = ", ".join(f"'{_quoted(path)}'" for path in paths)
    return f"read_parquet([{names}])"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
