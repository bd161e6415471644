"""Estimate how long a loaded version takes."""

import statistics
import time
from dataclasses import dataclass

import numpy as np

from registry.features import Arrays
from registry.runtimes.runtime import Runtime

MAX_BATCH_ROWS = 1_024
MIN_BATCH_S = 0.005


@dataclass(frozen=True, slots=True)
class LatencyEstimate:
    """The estimated cost of a call and of each row, in seconds."""

    call_s: float
    row_s: float

    def expected_s(self, rows: int) -> float:
        """Return the expected duration of a call with this many rows."""
        return self.call_s + rows * self.row_s

    def rows_at_once(self) -> int:
        """Return how many rows of several callers to run as one call.

        They may take as long as the call itself, and at least `MIN_BATCH_S`. More would delay the
        first of them by more than joining them saves.
        """
        rows = max(self.call_s, MIN_BATCH_S) / max(self.row_s, 1e-9)
        return max(1, min(int(rows), MAX_BATCH_ROWS))


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
