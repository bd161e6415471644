"""Usage events as inference sends them, and as rows of billing's tables."""

import random
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import orjson
import pymysql
from pymysql.cursors import Cursor

from harness.plans import PER_REQUEST, PER_ROW
from services.billing.ledger.entries import make_entry, usage_postings
from services.billing.usage.sums import month_of
from services.common.contracts import EVENT_SOURCE, EVENT_TYPE

BATCH = 2_000
"""Events in one delivery: as many as a process ships at once."""
ACCOUNTS = 1_000
MODELS = ("wine", "iris", "churn", "price", "fraud")
VERSION = "20261122t000000z-0a1b2c3d"
AMOUNT = PER_REQUEST + PER_ROW
"""10⁻⁹ of the unit for one request of one row under the local plan."""
FIRST_ACCOUNT = uuid.UUID("0198a000-0000-7000-8000-000000000000").int

_KEYS = "usage_event_keys (id, source, fingerprint, time)"
_EVENTS = (
    "usage_events (time, id, source, account, model, version, `rows`, client_id,"
    " price_id, amount, period, late, journal, sequence, received_at)"
)
KEYS = f"INSERT INTO {_KEYS} VALUES (%s, %s, %s, %s)"
EVENTS = f"INSERT INTO {_EVENTS} VALUES ({', '.join(['%s'] * 15)})"
"""In this form, drivers turn `executemany` into multi-row inserts."""
_LOADED_AT_ONCE = 200_000

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """The fields in which events differ."""

    id: str
    account: str
    model: str
    time: datetime
    journal: str
    sequence: int


def account(number: int) -> str:
    """Return the id of the account with a number."""
    return str(uuid.UUID(int=FIRST_ACCOUNT + number))


def make_events(
    count: int, *, journal: str, since: datetime, until: datetime, first: int = 1
) -> Iterator[Event]:
    """Yield events in the order of time; a few accounts have most of them, each with one model."""
    generator = random.Random(first)  # the same in every run
    step = (until - since) / count
    for number in range(count):
        time = since + number * step
        owner = int(ACCOUNTS * generator.random() ** 3)  # the first account gets a tenth of all
        model = MODELS[owner % len(MODELS)]
        yield Event(_new_id(time, generator), account(owner), model, time, journal, first + number)


def _new_id(time: datetime, generator: random.Random) -> str:
    """Return a UUIDv7, as inference does."""
    value = int(time.timestamp() * 1000) << 80 | 7 << 76 | 0b10 << 62
    return str(uuid.UUID(int=value | generator.getrandbits(12) << 64 | generator.getrandbits(62)))


def as_body(events: list[Event], *, price_id: str) -> bytes:
    """Return a batch as the inference service sends it."""
    return orjson.dumps(
        [
            {
                "sequence": f"{event.sequence:020d}",
                "specversion": "1.0",
                "type": EVENT_TYPE,
                "source": EVENT_SOURCE,
                "id": event.id,
                "subject": event.account,
                "time": event.time,
                "journal": event.journal,
                "data": {
                    "model": event.model,
                    "version": VERSION,
                    "rows": 1,
                    "client_id": "bench",
                    "latency_ms": 1.234,
                    "price_id": price_id,
                },
            }
            for event in events
        ]
    )


def as_rows(events: list[Event], *, price_id: str) -> tuple[list[Row], list[Row]]:
    """Return a batch as rows of the two tables it is stored in: for `KEYS` and for `EVENTS`."""
    keys: list[Row] = []
    stored_events: list[Row] = []
    for event in events:
        time = event.time.replace(tzinfo=None)
        keys.append((event.id, EVENT_SOURCE, event.id[:32], time))
        stored_events.append(
            (
                *(time, event.id, EVENT_SOURCE, event.account, event.model, VERSION, 1, "bench"),
                *(price_id, AMOUNT, f"{time:%Y-%m}", 0, event.journal, event.sequence, time),
            )
        )
    return keys, stored_events


def fill(
    connection: pymysql.Connection,
    *,
    events: int,
    price_id: str,
    since: datetime | None = None,
    until: datetime | None = None,
) -> None:
    """Store events and their sums, as fast as possible.

    Args:
        connection: one that may load local files.
        since: when the first one happens; by default, at the start of this month.
        until: when the last one has happened; by default, now.
    """
    now = datetime.now(UTC)
    generated = make_events(
        events,
        journal=str(uuid.uuid4()),
        since=since or month_of(now),
        until=until or now - timedelta(minutes=1),
    )
    with (
        relaxed(connection),
        connection.cursor() as cursor,
        tempfile.NamedTemporaryFile("w", encoding="ascii", suffix=".tsv") as file,
    ):
        while batch := list(islice(generated, _LOADED_AT_ONCE)):
            keys, stored_events = as_rows(batch, price_id=price_id)
            for table, stored in ((_KEYS, keys), (_EVENTS, stored_events)):
                file.seek(0)
                file.truncate()
                file.writelines("\t".join(map(str, row)) + "\n" for row in stored)
                file.flush()
                name, columns = table.split(" ", 1)
                cursor.execute(f"LOAD DATA LOCAL INFILE %s INTO TABLE {name} {columns}", file.name)
            connection.commit()
        for statement in _SUMS:
            cursor.execute(statement)
        connection.commit()
        # Make the server write its pages to disk now, not during a measurement.
        cursor.execute("FLUSH TABLES usage_event_keys, usage_events FOR EXPORT")
        cursor.execute("UNLOCK TABLES")


def post(connection: pymysql.Connection, *, now: datetime) -> None:
    """Post all stored events as one ledger entry."""
    with relaxed(connection), connection.cursor() as cursor:
        charged: Counter[tuple[str, bool]] = Counter()
        earned: Counter[str] = Counter()
        cursor.execute("SELECT account, model, SUM(amount) FROM usage_hours GROUP BY 1, 2")
        for owner, model, amount in cursor:
            charged[owner, False] += int(amount)
            earned[model] += int(amount)
        entry = make_entry(
            "usage", currency="USD", postings=usage_postings(charged, earned), now=now
        )
        if entry is None:
            return
        _insert(cursor, "ledger_entries", [entry.row() | {"created_at": now.replace(tzinfo=None)}])
        entry_id = cursor.lastrowid
        _insert(cursor, "ledger_postings", entry.posting_rows(entry_id))
        cursor.execute("UPDATE usage_events SET entry_id = %s", entry_id)
        connection.commit()


def _insert(cursor: Cursor, table: str, stored: list[dict[str, Any]]) -> None:
    names = ", ".join(stored[0])
    places = ", ".join(["%s"] * len(stored[0]))
    cursor.executemany(
        f"INSERT INTO {table} ({names}) VALUES ({places})", [[*row.values()] for row in stored]
    )


@contextmanager
def relaxed(connection: pymysql.Connection) -> Iterator[None]:
    """Keep commits from waiting for the disk, for work that is not measured."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION unique_checks=0, foreign_key_checks=0")
        cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit=2")
        yield
        cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit=1")


_SUMS = (
    """INSERT INTO usage_hours (account, hour, model, price_id, requests, `rows`, amount)
    SELECT account, DATE_FORMAT(time, '%Y-%m-%d %H:00:00'), model, price_id,
           COUNT(*), SUM(`rows`), SUM(amount)
    FROM usage_events GROUP BY 1, 2, 3, 4
    ON DUPLICATE KEY UPDATE requests = VALUES(requests), `rows` = VALUES(`rows`),
                            amount = VALUES(amount)""",
    f"""INSERT INTO usage_versions
    (account, hour, model, price_id, version, requests, `rows`, amount)
    SELECT account, hour, model, price_id, '{VERSION}', requests, `rows`, amount FROM usage_hours
    ON DUPLICATE KEY UPDATE requests = VALUES(requests), `rows` = VALUES(`rows`),
                            amount = VALUES(amount)""",
    """INSERT INTO usage_months (account, period, price_id, requests, `rows`, amount)
    SELECT account, period, price_id, COUNT(*), SUM(`rows`), SUM(amount)
    FROM usage_events GROUP BY 1, 2, 3
    ON DUPLICATE KEY UPDATE requests = VALUES(requests), `rows` = VALUES(`rows`),
                            amount = VALUES(amount)""",
    """INSERT IGNORE INTO accounts (id, currency, available, created_at)
    SELECT DISTINCT account, 'USD', 0, '2026-01-01' FROM usage_hours""",
)
