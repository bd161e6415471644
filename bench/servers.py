"""The servers to measure: inference processes of a platform, and the bare app."""

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.cores import on_server_core
from bench.samples import SampleModel
from harness.ports import free_port, is_listening
from harness.processes import Process, running_process
from harness.services import ServiceProcesses
from harness.waiting import eventually, is_ready

DRAIN_S = 60.0
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

Samples = dict[str, list[tuple[dict[str, str], float]]]


def total(samples: Samples, *names: str) -> float:
    """Return the sum of all samples with these names; 0 without one."""
    return sum(value for name in names for _, value in samples.get(name, []))


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process, shared pages in proportion (PSS); 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A ready server; `start_s` is the time from its start until it was ready."""

    url: str
    process: Process
    start_s: float

    def scrape(self) -> Samples:
        """Return all samples of its metrics: labels and value, by name."""
        text = httpx.get(f"{self.url}/metrics", trust_env=False).raise_for_status().text
        samples: Samples = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name].append((sample.labels, sample.value))
        return samples

    def await_shipped(self) -> None:
        """Wait until billing has all usage, so that its shipping slows no other measurement."""
        eventually(
            lambda: not total(self.scrape(), "tollgate_usage_journal_unshipped_bytes"),
            within_s=DRAIN_S,
        )

    def cpu_s(self) -> float:
        """Return the CPU time of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def memory_bytes(self) -> int:
        """Return the resident memory of the process."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )


@contextmanager
def inference(platform: ServiceProcesses, **environment: str) -> Iterator[RunningServer]:
    """Run an inference process of the platform on the server's core."""
    port = free_port()
    variables = platform.environment | _ONE_THREAD | {"INFERENCE_PORT": str(port)} | environment
    command = on_server_core(sys.executable, "-m", "services.inference")
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with running_process(
        *command, is_ready=lambda: is_ready(url), environment=variables, log=platform.log
    ) as process:
        yield RunningServer(url, process, time.perf_counter() - started)


@contextmanager
def bare(*models: SampleModel) -> Iterator[RunningServer]:
    """Run the bare app on the server's core."""
    port = free_port()
    served = [f"{model.name}={model.onnx}" for model in models]
    command = on_server_core(sys.executable, "-m", "bench.bare", str(port), *served)
    started = time.perf_counter()
    with running_process(
        *command, is_ready=lambda: is_listening(port), environment=dict(os.environ) | _ONE_THREAD
    ) as process:
        yield RunningServer(f"http://127.0.0.1:{port}", process, time.perf_counter() - started)
