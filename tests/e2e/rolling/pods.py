"""Treat processes as kubelet and the controllers treat the pods of a service."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.ports import free_port
from harness.processes import Process, await_process, stop_process
from harness.services import start_service
from services.common.http.readiness import failing
from tests.e2e.rolling.balancer import SLOTS, Balancer
from tests.e2e.rolling.timings import ENDPOINT_LAG_S, SCALE, Timings


@dataclass(frozen=True)
class Ending:
    """The end of a pod."""

    service: str
    code: int
    """Its exit code; negative for the signal that ended it."""
    seconds: float
    """Seconds from SIGTERM until it ended."""
    folder: Path
    """Its own disk."""


@dataclass(frozen=True)
class Pod:
    """One process, and its slot in the balancer."""

    slot: int
    port: int
    process: Process
    folder: Path


@dataclass
class Workload:
    """The pods of one service.

    Args:
        folder: the folder for each pod's own disk, which is deleted with the pod.
        environment: variables of every pod, except for its port and its own disk.
        log: the log file of all pods.
    """

    service: str
    balancer: Balancer
    timings: Timings
    folder: Path
    environment: Mapping[str, str]
    log: Path
    pods: list[Pod] = field(default_factory=list)
    """The pods that are not being stopped, oldest first."""
    _stopping: list[Future[Ending]] = field(default_factory=list)
    _threads: ThreadPoolExecutor = field(default_factory=ThreadPoolExecutor)
    _started: int = 0

    def scale(self, replicas: int) -> None:
        """Scale to this many pods; new ones are ready on return, others may still be stopping."""
        self._await_ready([self._start() for _ in range(replicas - len(self.pods))])
        while len(self.pods) > replicas:
            self._end(self.pods[-1])

    def roll(self) -> None:
        """Replace every pod like a Deployment: a new one must be ready before an old one stops."""
        old = list(self.pods)
        for first in range(0, len(old), self.timings.surge):
            stopping = old[first : first + self.timings.surge]
            self._await_ready([self._start() for _ in stopping])
            time.sleep(self.timings.min_ready_s)
            for pod in stopping:
                self._end(pod)

    def evict(self) -> None:
        """Drain the oldest pod's node: the pod stops before its replacement is ready."""
        self._end(self.pods[0])
        self._await_ready([self._start()])

    def endings(self) -> list[Ending]:
        """Wait for the pods stopped since the last call; return how they ended."""
        stopping, self._stopping = self._stopping, []
        return [each.result() for each in stopping]

    def close(self) -> list[Ending]:
        """Stop the remaining pods at once; return how they ended."""
        for pod in list(self.pods):
            self._end(pod, pre_stop_s=0)
        endings = self.endings()
        self._threads.shutdown()
        return endings

    def _start(self) -> Pod:
        slot, port = self._started % SLOTS, free_port()
        self._started += 1
        disk = self.folder / f"{self.service}-{self._started}"
        pod_settings = {
            f"{self.service.upper()}_PORT": str(port),
            "INFERENCE_JOURNAL_DIR": str(disk / "journal"),
            "INFERENCE_CACHE_DIR": str(disk / "cache"),
        }
        # PR_SET_PDEATHSIG follows the thread, so use one that lives as long as the pods.
        environment = {**self.environment, **pod_settings}
        start = partial(start_service, self.service, environment=environment, log=self.log)
        process = self._threads.submit(start).result()
        pod = Pod(slot, port, process, disk)
        self.pods.append(pod)
        return pod

    def _await_ready(self, pods: list[Pod]) -> None:
        """Probe new pods, and send them requests once they are ready."""
        for pod in pods:
            await_process(
                pod.process,
                partial(_is_ready, pod),
                log=self.log,
                every_s=self.timings.probe_s / 5,
            )
        time.sleep(ENDPOINT_LAG_S * SCALE)
        for pod in pods:
            self.balancer.add(self.service, pod.slot, port=pod.port)

    def _end(self, pod: Pod, *, pre_stop_s: float | None = None) -> None:
        """Delete a pod, which stops in the background."""
        self.pods.remove(pod)
        pause_s = self.timings.pre_stop_s if pre_stop_s is None else pre_stop_s
        self._stopping.append(self._threads.submit(self._terminate, pod, pause_s))

    def _terminate(self, pod: Pod, pre_stop_s: float) -> Ending:
        """Start the preStop sleep, withdraw the endpoint a moment later; SIGTERM, then SIGKILL."""
        deleted_at = time.monotonic()
        time.sleep(min(ENDPOINT_LAG_S * SCALE, pre_stop_s))
        self.balancer.remove(self.service, pod.slot)
        time.sleep(max(deleted_at + pre_stop_s - time.monotonic(), 0))
        signalled = time.monotonic()
        code = stop_process(pod.process, within_s=self.timings.stop_s)
        return Ending(self.service, code, time.monotonic() - signalled, pod.folder)


def _is_ready(pod: Pod) -> bool:
    return failing(pod.port) is None


def run_concurrently(*actions: Callable[[], None]) -> None:
    """Run actions at the same time; return when all are done, or raise what one of them raised."""
    with ThreadPoolExecutor(len(actions)) as threads:
        for future in [threads.submit(action) for action in actions]:
            future.result()
