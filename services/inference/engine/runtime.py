"""Runs a model: ONNX Runtime, inline when it is quicker than a thread hop, else in a pool."""

import asyncio
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from services.common.errors import BodyInvalid
from services.inference.models.inputs import Arrays

INLINE_S = 0.0005
"""Seconds of computing that may hold up the event loop; about five times a hop to a thread."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Labels or numbers, one a row; probabilities [rows, classes] if they were asked for."""

    predictions: list[Any]
    probabilities: list[list[float]] | None


class Runtime:
    """One loaded ONNX model; safe to call from several threads at once.

    Args:
        model: the bytes of a verified `model.onnx`.
        classifier: whether its second output is the probabilities.
        boolean_classes: whether its labels 0 and 1 mean false and true.

    Raises:
        onnxruntime's errors: the bytes are not a model this runtime can run.
    """

    def __init__(self, model: bytes, *, classifier: bool, boolean_classes: bool) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the pool is what runs in parallel
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        outputs = [output.name for output in self._session.get_outputs()]
        self._labels = outputs[:1]
        self._labels_and_probabilities = outputs[:2] if classifier else outputs[:1]
        self._boolean = boolean_classes
        self._call_s = 0.0
        self._row_s = 0.0

    def run(self, arrays: Arrays, *, probabilities: bool = False) -> Answer:
        """Predict; `probabilities` is for classifiers only.

        Raises:
            BodyInvalid: the values are so extreme that the model has no finite answer.
        """
        wanted = self._labels_and_probabilities if probabilities else self._labels
        outputs = self._session.run(wanted, arrays)
        numbers = outputs[-1]
        if numbers.dtype == np.float32 and not np.isfinite(numbers).all():
            message = "The model has no finite answer to values this extreme."
            raise BodyInvalid([{"loc": ["instances"], "msg": message}])
        predictions = outputs[0].ravel().tolist()
        if self._boolean:
            predictions = [bool(label) for label in predictions]
        return Answer(predictions, outputs[1].tolist() if probabilities else None)

    def measure(self, arrays: Arrays, *, repeats: int = 9) -> None:
        """Learn what a call and a row cost, from the arrays of one row."""
        rows = 64
        many = {name: np.repeat(array, rows, axis=0) for name, array in arrays.items()}
        one_s, many_s = (
            statistics.median(self._time(feed) for _ in range(repeats)) for feed in (arrays, many)
        )
        self._row_s = max(many_s - one_s, 0.0) / (rows - 1)
        self._call_s = one_s

    def expected_s(self, rows: int) -> float:
        """Seconds a call with that many rows will take."""
        return self._call_s + rows * self._row_s

    def _time(self, arrays: Arrays) -> float:
        started = time.perf_counter()
        self.run(arrays)
        return time.perf_counter() - started


class Engine:
    """Owns the threads on which slow predictions run, one for each CPU this process may use."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(
            max_workers=len(os.sched_getaffinity(0)), thread_name_prefix="predict"
        )

    async def predict(
        self, runtime: Runtime, arrays: Arrays, *, rows: int, probabilities: bool
    ) -> Answer:
        """Run where it disturbs least: a quick call here, a slow one off the event loop."""
        if runtime.expected_s(rows) <= INLINE_S:
            return runtime.run(arrays, probabilities=probabilities)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._pool, lambda: runtime.run(arrays, probabilities=probabilities)
        )

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
