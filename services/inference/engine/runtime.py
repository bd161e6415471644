"""Run models: quick calls on the event loop, slow ones in a thread pool."""

import asyncio
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from services.common.errors import BodyInvalid
from services.inference.models.inputs import Arrays

INLINE_S = 0.0005
"""The longest call, in seconds, that runs on the event loop; about five thread switches."""


class InferenceResponse(NamedTuple):
    """Labels or numbers, one per row; probabilities [rows, classes] if they were requested."""

    predictions: list[Any]
    probabilities: list[list[float]] | None


class Runtime(Protocol):
    """One loaded model; safe to call from several threads at once."""

    def run(self, arrays: Arrays, *, probabilities: bool = False) -> InferenceResponse:
        """Predict; `probabilities` is for classifiers only.

        Raises:
            BodyInvalid: the values are so extreme that the output is not finite.
        """
        ...


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


def check_finite(numbers: npt.NDArray[Any]) -> None:
    """Check that a model's output is finite.

    Raises:
        BodyInvalid: the values are so extreme that the output is not finite.
    """
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        message = "The values are too extreme: the model's output is not finite."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])


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
        """Run a quick call on the event loop and a slow one in a thread."""
        if latency.expected_s(rows) <= INLINE_S:
            return runtime.run(arrays, probabilities=probabilities)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._pool, lambda: runtime.run(arrays, probabilities=probabilities)
        )

    def close(self) -> None:
        """Drop the waiting work; do not wait for what is running."""
        self._pool.shutdown(wait=False, cancel_futures=True)
