"""Benchmarks of the billing service, through HTTP, on a real database server."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from statistics import median

import aiomysql
import httpx
import orjson
import pymysql
from sqlalchemy.engine import make_url

from bench import rows
from bench.closing import close_a_month, peak_mib
from bench.figures import Figure, Rates
from harness.accounts import add_credit, put_on_plan, store_prepaid_plan
from harness.services import ServiceProcesses
from services.common.contracts import CLOUDEVENTS_BATCH, MAX_LEASES_PER_CALL

BATCHES = 10
"""Deliveries in one measurement."""
ROUNDS = 7
READS = 50
CREDIT = 1000 * 10**9
"""Credit of a prepaid account, in 10⁻⁹ of the unit."""
SETUP_THREADS = 4

Say = Callable[[str], None]


class BillingBench:
    """Measures one platform; its events have consecutive sequences."""

    def __init__(self, platform: ServiceProcesses, say: Say) -> None:
        self._platform = platform
        self._say = say
        self._database = make_url(platform.environment["BILLING_DATABASE_URL"])
        self._journal = str(uuid.uuid4())
        self._first = 1
        self.stored = 0
        """Events of this month, without those that were sent to measure ingest."""
        self._until = datetime.now(UTC)
        self._token = platform.service_token()
        with platform.client("billing", self._token) as billing:
            [terms] = _request_leases(
                billing, _lease_requests([rows.account(0)], sequence=1)
            ).json()
        self._price_id: str = terms["prices"][0]["price_id"]

    def store(self, events: int) -> None:
        """Store this month's events of 1,000 accounts; those that are stored already count."""
        if self.stored >= events:
            return
        self._say(f"storing {events:,} events")
        started = time.perf_counter()
        with self._connect() as connection:
            rows.fill(connection, events=events, price_id=self._price_id)
        self._say(f"stored in {time.perf_counter() - started:.0f} s")
        self.stored += events

    async def ingest(self, *, stored: int) -> list[Figure]:
        """Compare rows/s through HTTP with raw inserts, on empty tables and with events stored."""
        empty = await self._rates()
        self.store(stored)
        full = await self._rates()
        return [
            Figure(
                "ingest through HTTP ÷ raw inserts, empty tables",
                empty.ratio,
                "×",
                f"{empty} rows/s",
                at_least=0.5,
            ),
            Figure(
                f"ingest through HTTP ÷ raw inserts, {stored:,} stored",
                full.ratio,
                "×",
                f"{full} rows/s",
                at_least=0.5,
            ),
            Figure(
                f"ingest with {stored:,} stored ÷ empty",
                median(full.first) / median(empty.first),
                "×",
                f"raw inserts alone: {median(full.second) / median(empty.second):.2f} ×",
                at_least=0.8,
            ),
        ]

    def usage(self, *, stored: int) -> Figure:
        """Time `GET /usage` by day, this month, of the account with a tenth of all events."""
        query = {"account": rows.account(0), "group_by": "day"}
        with self._platform.client("billing", self._platform.admin_token()) as billing:
            response = billing.get("/usage", params=query).raise_for_status()
            durations_ms = [
                _ms(lambda: billing.get("/usage", params=query).raise_for_status())
                for _ in range(READS)
            ]
        return Figure(
            f"GET /usage for a month, {stored:,} stored",
            median(durations_ms),
            "ms",
            f"median of {READS}, worst {max(durations_ms):.1f} ms, "
            f"{response.json()['total']['requests']:,} requests in it",
            at_most=50,
        )

    def export(self, *, stored: int) -> Figure:
        """Time the CSV of this month of the account with a tenth of all events, and its memory."""
        process_id = self._platform.children["billing"].pid
        before_mib = peak_mib(process_id)
        query = {"account": rows.account(0), "period": f"{datetime.now(UTC):%Y-%m}"}
        count, started = -1, time.perf_counter()  # one line is the header
        with (
            self._platform.client("billing", self._platform.admin_token()) as billing,
            billing.stream("GET", "/exports/usage", params=query, timeout=600) as response,
        ):
            response.raise_for_status()
            for piece in response.iter_bytes():
                count += piece.count(b"\n")
        took_s = time.perf_counter() - started
        return Figure(
            f"usage as CSV, {stored:,} stored",
            count / took_s,
            "rows/s",
            f"{count:,} rows in {took_s:.1f} s, "
            f"{peak_mib(process_id) - before_mib:.0f} MiB more than before",
            at_least=50_000,
        )

    def leases(self) -> list[Figure]:
        """Time one call that requests a thousand leases: postpaid accounts, then prepaid ones."""
        postpaid = [rows.account(number) for number in range(MAX_LEASES_PER_CALL)]
        self._say(f"opening {MAX_LEASES_PER_CALL} prepaid accounts")
        prepaid = [str(uuid.uuid4()) for _ in range(MAX_LEASES_PER_CALL)]
        token = self._platform.admin_token()
        with (
            self._connect() as connection,
            rows.relaxed(connection),
            self._platform.client("billing", token) as billing,
            ThreadPoolExecutor(SETUP_THREADS) as threads,
        ):
            plan_id = store_prepaid_plan(billing)
            list(threads.map(lambda account: _open(billing, account, plan_id), prepaid))
        return [self._lease("postpaid", postpaid), self._lease("prepaid", prepaid)]

    def _lease(self, kind: str, accounts: list[str]) -> Figure:
        """Time calls from the first byte sent to the last one received.

        Each request's `desired` is a little above the one before, so that every call grants.
        """
        bodies = [_lease_requests(accounts, sequence=number) for number in range(2, READS // 2)]
        with self._platform.client("billing", self._token) as billing:
            durations_ms = [_ms(partial(_request_leases, billing, body)) for body in bodies]
        return Figure(
            f"leases of {len(accounts):,} {kind} accounts in one call",
            median(durations_ms),
            "ms",
            f"median of {len(durations_ms)}, worst {max(durations_ms):.1f} ms",
            at_most=100,
        )

    def closing(self, *, events: int) -> list[Figure]:
        """Measure what closing a month takes."""
        with self._connect() as connection:
            return close_a_month(
                self._platform,
                connection,
                events=events,
                price_id=self._price_id,
                say=self._say,
            )

    async def _rates(self) -> Rates:
        """Measure rows/s through HTTP and by raw inserts, alternately."""
        rounds = [(self._http_rate(), await self._raw_rate()) for _ in range(ROUNDS)]
        http, raw = zip(*rounds, strict=True)
        return Rates(http, raw)

    def _http_rate(self) -> float:
        bodies = [rows.as_body(batch, price_id=self._price_id) for batch in self._batches()]
        with self._platform.client("billing", self._token) as billing:
            started = time.perf_counter()
            for body in bodies:
                response = billing.post(
                    "/events", content=body, headers={"Content-Type": CLOUDEVENTS_BATCH}
                )
                if response.raise_for_status().json()["accepted"] != rows.BATCH:
                    raise RuntimeError(response.text)
            return BATCHES * rows.BATCH / (time.perf_counter() - started)

    async def _raw_rate(self) -> float:
        batches = [rows.as_rows(batch, price_id=self._price_id) for batch in self._batches()]
        url = self._database
        connection = await aiomysql.connect(
            host=url.host, port=url.port, user=url.username, password=url.password, db=url.database
        )
        async with connection.cursor() as cursor:
            started = time.perf_counter()
            for keys, events in batches:
                await cursor.executemany(rows.KEYS, keys)
                await cursor.executemany(rows.EVENTS, events)
                await connection.commit()
            took_s = time.perf_counter() - started
        connection.close()
        return BATCHES * rows.BATCH / took_s

    def _batches(self) -> Iterator[list[rows.Event]]:
        """Yield batches of events that are later than all before, as in reality."""
        since, self._until = self._until, datetime.now(UTC)
        events = list(
            rows.make_events(
                BATCHES * rows.BATCH,
                journal=self._journal,
                since=since,
                until=self._until,
                first=self._first,
            )
        )
        self._first += len(events)
        for start in range(0, len(events), rows.BATCH):
            yield events[start : start + rows.BATCH]

    def _connect(self) -> pymysql.Connection:
        url = self._database
        return pymysql.connect(
            host=str(url.host),
            port=int(url.port or 0),
            user=url.username,
            password=str(url.password),
            database=url.database,
            local_infile=True,
        )


def _lease_requests(accounts: list[str], *, sequence: int) -> bytes:
    return orjson.dumps(
        [
            {
                "account": account,
                "journal": "0198b000-0000-7000-8000-000000000001",
                "sequence": sequence,
                "spent": "0",
                "minimum": "0.0006",
                "desired": f"0.{sequence:02d}",
                "demand": 1.0,
            }
            for account in accounts
        ]
    )


def _request_leases(billing: httpx.Client, requests: bytes) -> httpx.Response:
    response = billing.post(
        "/leases", content=requests, headers={"Content-Type": "application/json"}
    )
    return response.raise_for_status()


def _open(billing: httpx.Client, account: str, plan_id: str) -> None:
    put_on_plan(billing, account, plan_id=plan_id)
    add_credit(billing, account, CREDIT)


def _ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000
