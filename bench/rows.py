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
from typing import TypeVar

import orjson
import pymysql

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
_POSTED_EVENTS = _EVENTS.replace(")", ", entry_id)")
_ENTRIES = "ledger_entries (id, kind, currency, reference, created_at, digest)"
_POSTINGS = "ledger_postings (entry_id, line, ledger, account, model, amount_high, amount)"
_LOADED_AT_ONCE = 200_000

Row = tuple[object, ...]
Key = TypeVar("Key")


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
    """Store events, their sums and their ledger entries, as fast as possible.

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
        cursor.execute("SELECT COALESCE(MAX(id), 0) FROM ledger_entries")
        ((entries,),) = cursor.fetchall()
        while some := list(islice(generated, _LOADED_AT_ONCE)):
            for table, stored in _posted(some, price_id=price_id, entries=entries).items():
                file.seek(0)
                file.truncate()
                file.writelines("\t".join(map(str, row)) + "\n" for row in stored)
                file.flush()
                name, columns = table.split(" ", 1)
                cursor.execute(f"LOAD DATA LOCAL INFILE %s INTO TABLE {name} {columns}", file.name)
            connection.commit()
            entries += -(-len(some) // BATCH)
        for statement in _SUMS:
            cursor.execute(statement)
        connection.commit()
        # Make the server write its pages to disk now, not during a measurement.
        cursor.execute("FLUSH TABLES usage_event_keys, usage_events FOR EXPORT")
        cursor.execute("UNLOCK TABLES")


def _posted(events: list[Event], *, price_id: str, entries: int) -> dict[str, list[Row]]:
    """Return the rows of events by table, with a ledger entry for each batch.

    Args:
        entries: how many there are.
    """
    tables: dict[str, list[Row]] = {_KEYS: [], _POSTED_EVENTS: [], _ENTRIES: [], _POSTINGS: []}
    for start in range(0, len(events), BATCH):
        batch = events[start : start + BATCH]
        entries += 1
        keys, stored_events = as_rows(batch, price_id=price_id)
        charged = Counter((event.account, False) for event in batch)
        earned = Counter(event.model for event in batch)
        entry = make_entry(
            "usage",
            currency="USD",
            postings=usage_postings(_amounts(charged), _amounts(earned)),
            now=batch[-1].time,
        )
        tables[_KEYS] += keys
        tables[_POSTED_EVENTS] += [(*row, entries) for row in stored_events]
        if entry is not None:
            created_at = entry.created_at.replace(tzinfo=None)
            row = entry.row() | {"created_at": created_at}
            tables[_ENTRIES].append((entries, *row.values()))
            tables[_POSTINGS] += [tuple(each.values()) for each in entry.posting_rows(entries)]
    return tables


def _amounts(requests: Counter[Key]) -> dict[Key, int]:
    return {key: count * AMOUNT for key, count in requests.items()}


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
