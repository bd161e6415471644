"""Slow predictions are computed in the configured number of threads."""

import asyncio
import threading
from unittest.mock import Mock

import numpy as np

from registry.features import Arrays
from registry.records import Signature
from registry.runtimes.runtime import ModelOutput, Runtime
from services.inference.models.engine import Engine
from services.inference.models.latency import LatencyEstimate
from services.inference.models.table import LoadedModel

SLOW = LatencyEstimate(call_s=1.0, row_s=0.0)


class Pairs(Runtime):
    """A model whose calls wait for a second call; it counts the calls in progress."""

    def __init__(self) -> None:
        super().__init__(Signature(task="regression", target="y", columns=[], classes=None))
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._pair = threading.Barrier(2, timeout=30)

    def compute(self, arrays: Arrays, *, probabilities: bool = False) -> ModelOutput:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self._pair.wait()
        with self._lock:
            self._now -= 1
        return ModelOutput(predictions=np.zeros(1), probabilities=None)


class TestThreads:
    async def test_slow_predictions_use_all_configured_threads(self) -> None:
        engine, pairs = Engine(threads=2), Pairs()
        model = LoadedModel(Mock(), Mock(), pairs, SLOW, size=0)

        answers = await asyncio.gather(
            *(engine.predict(model, {}, rows=1, probabilities=False) for _ in range(8))
        )

        assert len(answers) == 8
        assert pairs.most == 2
        engine.close()
