"""Benchmark of many accounts: throughput and memory with one of each, and with 100,000."""

import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import load, samples
from bench.figures import Figure, Rates
from bench.samples import json_request
from bench.servers import RunningServer, inference
from bench.timing import Timing
from harness.auth_keys import key_ring_of
from harness.issuer import new_private_key, private_pem
from harness.services import ServiceProcesses
from services.auth.keys import read_folder
from services.common.contracts import AUDIENCE

CONNECTIONS = 64
CONNECTIONS_FIRST = 500
"""For each account's first request, which waits for a lease: billing grants many in one call."""
_CHUNK = 500
_ROUND_S = 5.0
_WARM_UP_S = 300.0
_GROWTH = 1.1


def store_short_key(home: Path) -> None:
    """Give a platform that has not started yet the shortest accepted key, which signs fast."""
    (home / "keys/auth").mkdir(parents=True)
    (home / "keys/auth/0001.pem").write_text(private_pem(new_private_key()))


def accounts(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Compare one account and token with many, each in a process of its own."""
    timing.say(f"signing {timing.accounts:,} tokens")
    tokens = _tokens(platform, timing.accounts)
    with inference(platform) as one, inference(platform) as many:
        model = samples.wine(platform)
        requests = [json_request(many.url, model.name, model.rows, token=t) for t in tokens]
        load.measure(one.url, requests[:1], connections=CONNECTIONS, seconds=1)
        one_bytes = one.memory_bytes()
        with _stopped(one):
            _first_requests(many, requests, timing)
        rates, many_bytes = _rounds(many, one, requests, timing)
    timing.say(f"{timing.accounts:,} accounts and one: {rates}")
    each = (many_bytes[-1] - one_bytes) / timing.accounts
    return [
        Figure(
            f"one row, {timing.accounts:,} accounts and tokens ÷ one",
            rates.ratio,
            "×",
            f"{rates} req/s, {CONNECTIONS} connections",
            at_least=0.95,
        ),
        Figure(
            f"memory with {timing.accounts:,} accounts, last round ÷ first",
            many_bytes[-1] / many_bytes[0],
            "×",
            f"{many_bytes[-1] / 1e6:,.0f} MB; with one account {one_bytes / 1e6:,.0f} MB: "
            f"{each:,.0f} bytes for each",
            at_most=_GROWTH,
        ),
    ]


def _rounds(
    many: RunningServer, one: RunningServer, requests: list[bytes], timing: Timing
) -> tuple[Rates, list[int]]:
    """Measure both alternately; return the rates, and the memory of `many` after each round.

    The process that is not measured is stopped meanwhile, because its leases are renewed in the
    background.
    """
    rates: dict[str, list[float]] = {many.url: [], one.url: []}
    memory: list[int] = []
    for number in range(timing.repetitions):
        pairs = [(many, one), (one, many)]
        for server, other in pairs if number % 2 else reversed(pairs):
            with _stopped(other):
                measured = load.measure(
                    server.url,
                    requests if server is many else requests[:1],
                    connections=CONNECTIONS,
                    seconds=timing.seconds,
                    first=number * len(requests) // timing.repetitions,
                )
                server.await_shipped()
            rates[server.url].append(measured.rate)
        memory.append(many.memory_bytes())
    return Rates(tuple(rates[many.url]), tuple(rates[one.url])), memory


def _first_requests(server: RunningServer, requests: list[bytes], timing: Timing) -> None:
    """Send each account's first request.

    Raises:
        RequestsFailed: they took too long.
    """
    sent, deadline = 0, time.monotonic() + _WARM_UP_S
    while sent < len(requests):
        if time.monotonic() > deadline:
            raise load.RequestsFailed(f"{sent:,} accounts took {_WARM_UP_S:g} s")
        measured = load.measure(
            server.url, requests, connections=CONNECTIONS_FIRST, seconds=_ROUND_S, first=sent
        )
        sent += measured.responses
        timing.say(f"first requests of {min(sent, len(requests)):,} accounts")
    server.await_shipped()


def _tokens(platform: ServiceProcesses, count: int) -> list[str]:
    """Sign tokens of as many accounts with auth's own key, on all cores."""
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), _use_all_cores) as pool:
        sign = partial(_sign, platform.home / "keys/auth", platform.urls["auth"])
        sizes = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
        return [token for signed in pool.imap(sign, sizes) for token in signed]


def _sign(keys: Path, issuer: str, count: int) -> list[str]:
    """Sign tokens of new accounts."""
    key_ring, now = key_ring_of(read_folder(keys)), int(time.time())
    claims = {"iss": issuer, "aud": AUDIENCE, "iat": now, "exp": now + 3600}
    claims |= {"client_id": "bench", "scope": "predict usage:read"}
    return [
        key_ring.sign(claims | {"sub": str(uuid.uuid4()), "jti": uuid.uuid4().hex})
        for _ in range(count)
    ]


def _use_all_cores() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


@contextmanager
def _stopped(server: RunningServer) -> Iterator[None]:
    """Stop a process during the block."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)
