"""Canaries: route accounts to them, compare them with the live version, and roll back bad ones.

A process that finds a canary worse than the live version stops using it at once, and writes the
rollback in the background. Every process decides on its own. A rollback names the release it is
about and has no effect once a higher one exists, so only one record is written.
"""

import asyncio
import hashlib
import os
import socket
from dataclasses import dataclass, field

import structlog

from registry.records import Manifest, Release, StoreError
from registry.releases import ReleaseManager
from services.common.errors import ServiceError
from services.inference.models.loader import Loader
from services.inference.models.table import LoadedModel, ModelTable
from services.inference.rollouts.judge import VersionStats, find_fault
from services.inference.rollouts.metrics import RolloutMetrics
from services.inference.thread_limiter import ThreadLimiter

WRITE_RETRY_S = 5.0
WRITE_DEADLINE_S = 60.0

log = structlog.get_logger()


def rollout_bucket(account: str, *, model: str, version: str) -> float:
    """Return an account's bucket in [0, 100): a canary of N % gets the accounts below N.

    The bucket is the same in every process and after a restart. It differs between canaries, so
    that it is not always the same accounts that get new versions first.
    """
    key = f"{account}\0{model}\0{version}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest()) * 100 / 2**48


def actor() -> str:
    """Return the author of the releases that this process writes."""
    return f"inference@{socket.gethostname()}/{os.getpid()}"


@dataclass(slots=True)
class Trial:
    """The canary and the live version of one release; `over` once the canary was found worse."""

    number: int
    canary: VersionStats = field(default_factory=VersionStats)
    live: VersionStats = field(default_factory=VersionStats)
    over: bool = False


class Canaries:
    """Routes accounts to canaries, and compares canaries with the live versions."""

    def __init__(
        self,
        table: ModelTable,
        loader: Loader,
        release_manager: ReleaseManager,
        metrics: RolloutMetrics,
    ) -> None:
        self._table = table
        self._loader = loader
        self._release_manager = release_manager
        self._metrics = metrics
        self._trials: dict[str, Trial] = {}
        self._threads = ThreadLimiter(at_once=1, deadline_s=WRITE_DEADLINE_S)
        self._faults: asyncio.Queue[tuple[str, int, str]] = asyncio.Queue()

    def trial(self, answering: Manifest) -> Trial | None:
        """Return the running trial of a version; None without a canary, or if it is not live."""
        name = answering.model
        live = self._table.find_live(name)
        if live is None or live.canary is None or live.manifest.version != answering.version:
            return None
        trial = self._trials.get(name)
        if trial is None or trial.number != live.release.number:
            trial = self._trials[name] = Trial(live.release.number)
        return None if trial.over else trial

    async def pick(self, name: str, account: str) -> LoadedModel | None:
        """Return the canary if it serves this account; None if the live version does."""
        canary = self._table.live(name).canary
        if (
            canary is None
            or rollout_bucket(account, model=name, version=canary.version) >= canary.percent
        ):
            return None
        try:
            return self._table.find(name, canary.version) or await self._loader.get(
                name, canary.version
            )
        except ServiceError:  # it was unloaded and cannot be loaded right now
            return None

    def answered(self, trial: Trial, model: LoadedModel, seconds: float, *, canary: bool) -> None:
        """Count a successful request of either version.

        Args:
            seconds: the computing time, scaled to a request of one row.
        """
        if canary:
            self._metrics.canary.labels(*_labels(model), "answered").inc()
        (trial.canary if canary else trial.live).add_answer(seconds)
        self._judge(trial, model)

    def failed(self, trial: Trial, model: LoadedModel, *, canary: bool) -> None:
        """Count a failed request of either version."""
        if canary:
            self._metrics.canary.labels(*_labels(model), "failed").inc()
        (trial.canary if canary else trial.live).add_failure()
        self._judge(trial, model)

    def refused(self, name: str, release: Release, fault: str) -> None:
        """Stop a canary that failed before its first request."""
        trial = self._trials.get(name)
        if trial is None or trial.number != release.number:
            self._end(name, Trial(release.number), fault)

    async def run(self) -> None:
        """Write pending rollbacks; cancel to stop."""
        while True:
            due = name, number, fault = await self._faults.get()
            if self._table.live_number(name) != number:
                continue
            try:
                await self._threads.run(self._roll_back, name, number, fault)
            except StoreError as error:
                self._metrics.unwritten.labels(name).inc()
                log.warning("rollback_write_failed", model=name, error=str(error))
                asyncio.get_running_loop().call_later(WRITE_RETRY_S, self._faults.put_nowait, due)

    def _judge(self, trial: Trial, model: LoadedModel) -> None:
        fault = None if trial.over else find_fault(trial.canary, trial.live)
        if fault is not None:
            self._end(model.manifest.model, trial, f"The canary {fault}.")

    def _end(self, name: str, trial: Trial, fault: str) -> None:
        trial.over = True
        self._trials[name] = trial
        self._metrics.stopped.labels(name).inc()
        log.error("canary_stopped", model=name, release=trial.number, reason=fault)
        self._faults.put_nowait((name, trial.number, fault))

    def _roll_back(self, name: str, number: int, fault: str) -> None:
        decision = self._release_manager.roll_back(name, expected_release=number, reason=fault)
        if decision.written:
            log.info("canary_rolled_back", model=name, release=decision.live.number)


def _labels(model: LoadedModel) -> tuple[str, str]:
    return model.manifest.model, model.manifest.version
