"""Benchmark of overload: four times the capacity for half a minute, without waiting for answers."""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import load, samples
from bench.figures import Figure
from bench.samples import json_request
from bench.servers import RunningServer, inference
from bench.timing import Timing
from cli.die_with_parent import die_with_parent
from harness.programs import ROOT
from harness.services import ServiceProcesses

ACCOUNTS = 8
CAPACITY_CONNECTIONS = 16
TIMES = 4
AT_ONCE_MS = 500.0
_REFUSALS = ("429", "503")
_SAMPLE_EVERY_S = 0.5
_GROWTH = 1.1


def overload(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Send requests of many rows at four times the rate that the server can answer."""
    model = samples.forest(platform)
    tokens = [platform.new_token() for _ in range(ACCOUNTS)]
    with inference(platform) as server:
        requests = [
            json_request(server.url, model.name, model.rows, token=token) for token in tokens
        ]
        load.measure(server.url, requests, connections=CAPACITY_CONNECTIONS, seconds=1)
        capacity = statistics.median(
            load.measure(
                server.url, requests, connections=CAPACITY_CONNECTIONS, seconds=timing.seconds
            ).rate
            for _ in range(timing.repetitions)
        )
        rate = TIMES * capacity
        timing.say(f"capacity is {capacity:,.0f} req/s; sending {rate:,.0f} req/s")
        with _memory(server) as memory:
            result = _flood(server.url, requests, rate=rate, seconds=timing.overload_s)
        server.await_shipped()
    return _figures(result, capacity, memory, timing)


def _figures(
    result: dict[str, dict[str, float]], capacity: float, memory: list[int], timing: Timing
) -> list[Figure]:
    """Judge what `open_loop` printed, and the memory after the queues have filled."""
    counts = {status: int(each["responses"]) for status, each in result.items()}
    refused = [each["p99_ms"] for status, each in result.items() if status in _REFUSALS]
    ok = result.get("200", {"in_time": 0, "p99_ms": 0})
    answered = ok["in_time"] / timing.overload_s
    others = sum(n for status, n in counts.items() if status not in ("200", *_REFUSALS))
    listed = ", ".join(f"{n:,} × {status}" for status, n in sorted(counts.items()))
    timing.say(listed)
    third = max(1, len(memory) // 3)
    before = statistics.median(memory[third : 2 * third] or memory)
    after = statistics.median(memory[-third:])
    return [
        Figure(
            f"answered at {TIMES} times the capacity ÷ capacity",
            answered / capacity,
            "×",
            f"{answered:,.0f} and {capacity:,.0f} req/s; {listed}",
            at_least=0.9,
        ),
        Figure(
            "overload: refusals at once, p99",
            max(refused) if refused else None,
            "ms",
            f"{'' if refused else 'nothing was refused; '}answered: p99 {ok['p99_ms']:,.0f} ms",
            at_most=AT_ONCE_MS,
        ),
        Figure(
            "overload: time-outs and other failures",
            others,
            "requests",
            "neither answered nor refused with 429 or 503",
            at_most=0,
        ),
        Figure(
            "overload: memory of the last third ÷ of the second",
            after / before,
            "×",
            f"{after / 1e6:,.0f} and {before / 1e6:,.0f} MB",
            at_most=_GROWTH,
        ),
    ]


def _flood(
    url: str, requests: list[bytes], *, rate: float, seconds: float
) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        for number, request in enumerate(requests):
            (Path(name) / f"{number}.http").write_bytes(request)
        command = ("-m", "bench.open_loop", url, name, str(rate), str(seconds))
        finished = subprocess.run(
            die_with_parent(sys.executable, *command),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    found: dict[str, dict[str, float]] = json.loads(finished.stdout)
    return found


@contextmanager
def _memory(server: RunningServer) -> Iterator[list[int]]:
    """Sample the memory of a process during the block, in bytes."""
    found, done = [server.memory_bytes()], threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_EVERY_S):
            found.append(server.memory_bytes())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
