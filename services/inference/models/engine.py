"""Run models: quick calls on the event loop, slow ones in a thread pool."""

import asyncio
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from registry.features import Arrays
from registry.runtimes.runtime import InferenceResponse, OutputNotFinite, Runtime
from services.common.errors import BodyInvalid

INLINE_S = 0.0005
"""The longest call, in seconds, that runs on the event loop; about five thread switches."""


@dataclass(frozen=True, slots=True)
class LatencyEstimate:
    """The estimated cost of a call and of each row, in seconds."""

    call_s: float
    row_s: float

    def expected_s(self, rows: int) -> float:
        """Return the expected duration of a call with this many rows."""
        return self.call_s + rows * self.row_s


def estimate_latency(runtime: Runtime, arrays: Arrays, *, repeats: int = 9) -> LatencyEstimate:
    """Measure a model's latency with the arrays of one row."""
    rows = 64
    many = {name: np.repeat(array, rows, axis=0) for name, array in arrays.items()}
    one_s, many_s = (
        statistics.median(_time(runtime, feed) for _ in range(repeats)) for feed in (arrays, many)
    )
    return LatencyEstimate(call_s=one_s, row_s=max(many_s - one_s, 0.0) / (rows - 1))


def _time(runtime: Runtime, arrays: Arrays) -> float:
    started = time.perf_counter()
    runtime.run(arrays)
    return time.perf_counter() - started


class Engine:
    """Owns the threads that run slow predictions."""

    def __init__(self, *, threads: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="predict")

    async def predict(
        self,
        runtime: Runtime,
        latency: LatencyEstimate,
        arrays: Arrays,
        *,
        rows: int,
        probabilities: bool,
    ) -> InferenceResponse:
        """Run a quick call on the event loop and a slow one in a thread.

        Raises:
            BodyInvalid: the values are so extreme that the output is not finite.
        """
        try:
            if latency.expected_s(rows) <= INLINE_S:
                return runtime.run(arrays, probabilities=probabilities)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._pool, lambda: runtime.run(arrays, probabilities=probabilities)
            )
        except OutputNotFinite as error:
            message = "The values are too extreme: the model's output is not finite."
            raise BodyInvalid([{"loc": ["body"], "msg": message}]) from error

    def close(self) -> None:
        """Drop the waiting work; do not wait for what is running."""
        self._pool.shutdown(wait=False, cancel_futures=True)
