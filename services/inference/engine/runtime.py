"""What runs a model, and where: inline when it is quicker than a thread hop, else in a pool."""

import asyncio
import os
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
"""Seconds of computing that may hold up the event loop; about five times a hop to a thread."""


class Answer(NamedTuple):
    """Labels or numbers, one a row; probabilities [rows, classes] if they were asked for."""

    predictions: list[Any]
    probabilities: list[list[float]] | None


class Runtime(Protocol):
    """One loaded model; safe to call from several threads at once."""

    def run(self, arrays: Arrays, *, probabilities: bool = False) -> Answer:
        """Predict; `probabilities` is for classifiers only.

        Raises:
            BodyInvalid: the values are so extreme that the model has no finite answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """What one model's calls and rows cost, in seconds."""

    call_s: float
    row_s: float

    def expected_s(self, rows: int) -> float:
        """Seconds a call with that many rows will take."""
        return self.call_s + rows * self.row_s


def measure(runtime: Runtime, arrays: Arrays, *, repeats: int = 9) -> Pace:
    """Learn a model's pace from the arrays of one row."""
    rows = 64
    many = {name: np.repeat(array, rows, axis=0) for name, array in arrays.items()}
    one_s, many_s = (
        statistics.median(_time(runtime, feed) for _ in range(repeats)) for feed in (arrays, many)
    )
    return Pace(call_s=one_s, row_s=max(many_s - one_s, 0.0) / (rows - 1))


def _time(runtime: Runtime, arrays: Arrays) -> float:
    started = time.perf_counter()
    runtime.run(arrays)
    return time.perf_counter() - started


def check_finite(numbers: npt.NDArray[Any]) -> None:
    """Hold a model's floating-point output against what an answer may be.

    Raises:
        BodyInvalid: the values are so extreme that the model has no finite answer.
    """
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        message = "The model has no finite answer to values this extreme."
        raise BodyInvalid([{"loc": ["body"], "msg": message}])


class Engine:
    """Owns the threads on which slow predictions run, one for each CPU this process may use."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(
            max_workers=len(os.sched_getaffinity(0)), thread_name_prefix="predict"
        )

    async def predict(
        self, runtime: Runtime, pace: Pace, arrays: Arrays, *, rows: int, probabilities: bool
    ) -> Answer:
        """Run where it disturbs least: a quick call here, a slow one off the event loop."""
        if pace.expected_s(rows) <= INLINE_S:
            return runtime.run(arrays, probabilities=probabilities)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._pool, lambda: runtime.run(arrays, probabilities=probabilities)
        )

    def close(self) -> None:
        """Begin nothing more; a computation that is stuck is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
