"""Benchmark of two inference processes that share one prepaid account: CPU time per request."""

import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import load, samples
from bench.figures import Figure
from bench.samples import json_request
from bench.servers import RunningServer, inference
from bench.timing import Timing
from harness.accounts import PLENTY, new_prepaid_account
from harness.services import ServiceProcesses

CONNECTIONS = 64


def sharing(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Compare the CPU time per request of two processes with that of one."""
    token, model = new_prepaid_account(platform, credit=PLENTY).token, samples.wine(platform)
    with inference(platform) as first, inference(platform) as second:
        requests = {
            server.url: json_request(server.url, model.name, model.rows, token=token)
            for server in (first, second)
        }
        alone: list[float] = []
        together: list[float] = []
        _cpu_us([first, second], requests, seconds=1)  # a warm-up
        for _ in range(timing.repetitions):
            alone.append(_cpu_us([first], requests, seconds=timing.seconds))
            together.append(_cpu_us([first, second], requests, seconds=timing.seconds))
    ratio = statistics.median(t / a for t, a in zip(together, alone, strict=True))
    detail = f"{statistics.median(together):.0f} and {statistics.median(alone):.0f} µs"
    timing.say(f"CPU time per request of two processes and of one: {detail}")
    name = "CPU per request, two processes with one account ÷ one process"
    return [Figure(name, ratio, "×", detail, at_most=1.05)]


def _cpu_us(
    servers: Sequence[RunningServer], requests: dict[str, bytes], *, seconds: float
) -> float:
    """Return the CPU time per request, with the same number of connections in total."""
    before = sum(server.cpu_s() for server in servers)
    with ThreadPoolExecutor(len(servers)) as threads:
        measured = threads.map(
            lambda server: load.measure(
                server.url,
                [requests[server.url]],
                connections=CONNECTIONS // len(servers),
                seconds=seconds,
            ),
            servers,
        )
        responses = sum(each.responses for each in measured)
    for server in servers:
        server.await_shipped()
    return (sum(server.cpu_s() for server in servers) - before) / responses * 1e6
