"""Benchmark of an inference process that starts: time to ready with a cached model, and memory."""

import statistics
import time

from bench.figures import Figure
from bench.servers import inference
from bench.timing import Timing
from harness.services import ServiceProcesses

STARTS = 5
SETTLE_S = 1.0


def startup(platform: ServiceProcesses, timing: Timing) -> list[Figure]:
    """Measure starts, one after the other; the first fills the cache and does not count."""
    seconds, memory = list[float](), list[int]()
    for _ in range(1 + STARTS):
        with inference(platform) as server:
            seconds.append(server.start_s)
            time.sleep(SETTLE_S)
            memory.append(server.memory_bytes())
    timing.say(f"ready within {statistics.median(seconds[1:]):.2f} s")
    detail = f"median of {STARTS}, worst {{}}"
    return [
        Figure(
            "start to ready, model cached",
            statistics.median(seconds[1:]),
            "s",
            detail.format(f"{max(seconds[1:]):.2f} s"),
            at_most=1.0,
        ),
        Figure(
            "idle memory",
            statistics.median(memory[1:]) / 1e6,
            "MB",
            detail.format(f"{max(memory[1:]) / 1e6:.0f} MB"),
            at_most=120,
        ),
    ]
