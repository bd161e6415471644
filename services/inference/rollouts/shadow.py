"""Shadows: versions that repeat requests the live version has answered, for comparison.

Callers never wait for a shadow. Its work starts after the response was sent, in one thread of low
priority. Requests that a shadow is too busy for are dropped and counted.
"""

import asyncio
import math
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from registry.features import Arrays
from registry.records import Manifest
from services.common.errors import ServiceError
from services.inference.models.loader import Loader
from services.inference.models.table import LoadedModel, ModelTable
from services.inference.rollouts.metrics import RolloutMetrics

TOLERANCE = 0.01
"""Numbers agree if they differ by at most this share of the larger one."""
MAX_WAITING = 256
MAX_WAITING_BYTES = 16 << 20
"""Maximum bytes that requests waiting for a shadow keep in memory."""
NICENESS = 10

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ShadowRequest:
    """An answered request to repeat; `size` in bytes of memory."""

    by: Manifest
    arrays: Arrays
    predictions: list[Any]
    size: int


class Shadows:
    """Repeats answered requests on the shadows of their models.

    Args:
        table: the source of each model's shadow.
        max_waiting: maximum requests waiting for a shadow.
    """

    def __init__(
        self,
        table: ModelTable,
        loader: Loader,
        metrics: RolloutMetrics,
        *,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._table = table
        self._loader = loader
        self._metrics = metrics
        self._max_waiting = max_waiting
        self._waiting: deque[ShadowRequest] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="shadow", initializer=_lower_priority
        )

    def wanted(self, name: str) -> bool:
        """Return whether a model has a shadow."""
        live = self._table.find_live(name)
        return live is not None and live.shadow is not None

    def offer(self, answered: ShadowRequest) -> None:
        """Queue a request, or drop it if the queue is full."""
        if (
            len(self._waiting) >= self._max_waiting
            or self._waiting_bytes + answered.size > MAX_WAITING_BYTES
        ):
            self._metrics.dropped.labels(answered.by.model).inc()
            return
        self._waiting.append(answered)
        self._waiting_bytes += answered.size
        self._arrived.set()

    async def run(self) -> None:
        """Process the queue; cancel to stop."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                answered = self._waiting.popleft()
                self._waiting_bytes -= answered.size
                with suppress(ServiceError):  # the shadow ended, or it cannot be loaded
                    await self._compare(answered)

    def close(self) -> None:
        """Drop the queue."""
        self._waiting.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _compare(self, answered: ShadowRequest) -> None:
        name = answered.by.model
        live = self._table.find_live(name)
        shadow = live.shadow if live else None
        if shadow is None:
            return
        version = shadow.version
        model = self._table.find(name, version) or await self._loader.get(name, version)
        if model.manifest.signature.columns != answered.by.signature.columns:
            return  # the shadow belongs to a later release
        loop = asyncio.get_running_loop()
        try:
            predictions = await loop.run_in_executor(self._thread, _run, model, answered.arrays)
        except Exception as error:  # finding such errors is the purpose of a shadow
            log.warning("shadow_failed", model=name, version=version, error=repr(error))
            outcomes = {"failed": len(answered.predictions)}
        else:
            pairs = zip(predictions, answered.predictions, strict=True)
            agreed = sum(agree(ours, theirs) for ours, theirs in pairs)
            outcomes = {"agreed": agreed, "disagreed": len(predictions) - agreed}
        for outcome, rows in outcomes.items():
            self._metrics.shadow.labels(name, version, outcome).inc(rows)


def agree(one: Any, other: Any) -> bool:
    """Return whether labels are equal, or numbers are within the tolerance."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE)
    return bool(one == other)


def _run(model: LoadedModel, arrays: Arrays) -> list[Any]:
    return model.runtime.run(arrays).predictions


def _lower_priority() -> None:
    """Lower the priority of this thread; on Linux each thread has its own."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
