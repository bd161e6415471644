"""Shadows: a version that computes what another has already answered, and is compared.

Nothing here is on a caller's way: the work begins once the answer left, in one thread of low
priority, and what a shadow is too busy for is dropped and counted.
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

from services.common.errors import ServiceError
from services.common.model_store import Manifest
from services.inference.models.inputs import Arrays
from services.inference.models.loader import Loader
from services.inference.models.registry import LoadedModel, Registry
from services.inference.rollouts.metrics import RolloutMetrics

TOLERANCE = 0.01
"""Numbers agree if they differ by at most this share of the larger one."""
MAX_WAITING = 256
MAX_WAITING_BYTES = 16 << 20
"""Requests that may wait for a shadow, and the bytes they keep in memory."""
NICENESS = 10

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answered:
    """A request as it was answered; `size` in bytes of memory."""

    by: Manifest
    arrays: Arrays
    predictions: list[Any]
    size: int


class Shadows:
    """Computes answered requests again, by the versions that are shadows.

    Args:
        registry: says which version is a model's shadow.
    """

    def __init__(self, registry: Registry, loader: Loader, metrics: RolloutMetrics) -> None:
        self._registry = registry
        self._loader = loader
        self._metrics = metrics
        self._waiting: deque[Answered] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow", initializer=_step_back)

    def wanted(self, name: str) -> bool:
        """Whether a model has a shadow."""
        live = self._registry.find_live(name)
        return live is not None and live.shadow is not None

    def offer(self, answered: Answered) -> None:
        """Have a request computed again, unless too much waits already."""
        if (
            len(self._waiting) >= MAX_WAITING
            or self._waiting_bytes + answered.size > MAX_WAITING_BYTES
        ):
            self._metrics.dropped.labels(answered.by.model).inc()
            return
        self._waiting.append(answered)
        self._waiting_bytes += answered.size
        self._arrived.set()

    async def run(self) -> None:
        """Compute and compare, for ever; cancel to stop."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                answered = self._waiting.popleft()
                self._waiting_bytes -= answered.size
                with suppress(ServiceError):  # the shadow ended, or it had to make room
                    await self._compare(answered)

    def close(self) -> None:
        """Give up what waits."""
        self._waiting.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _compare(self, answered: Answered) -> None:
        name = answered.by.model
        live = self._registry.find_live(name)
        shadow = live.shadow if live else None
        if shadow is None:
            return
        version = shadow.version
        model = self._registry.find(name, version) or await self._loader.get(name, version)
        if model.manifest.signature.columns != answered.by.signature.columns:
            return  # the shadow of a later release than the one that answered
        loop = asyncio.get_running_loop()
        try:
            told = await loop.run_in_executor(self._thread, _run, model, answered.arrays)
        except Exception as error:  # whatever a runtime raises is what a shadow is run to find out
            log.warning("shadow_failed", model=name, version=version, error=repr(error))
            outcomes = {"failed": len(answered.predictions)}
        else:
            pairs = zip(told, answered.predictions, strict=True)
            agreed = sum(agree(ours, theirs) for ours, theirs in pairs)
            outcomes = {"agreed": agreed, "disagreed": len(told) - agreed}
        for outcome, rows in outcomes.items():
            self._metrics.shadow.labels(name, version, outcome).inc(rows)


def agree(one: Any, other: Any) -> bool:
    """The same label, or numbers within the tolerance."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE)
    return bool(one == other)


def _run(model: LoadedModel, arrays: Arrays) -> list[Any]:
    return model.runtime.run(arrays).predictions


def _step_back() -> None:
    """Let every other thread go first; Linux has a priority for each."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
