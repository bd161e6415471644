"""Run a rival, and leave no process of it behind."""

import os
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson

from bench.cores import on_server_core
from bench.rivals.catalogue import Rival, Rows
from bench.rivals.environments import APPS, python_of
from bench.servers import proportional_bytes
from harness.ports import free_port
from harness.processes import Process, end_of, start_process, stop_process
from harness.waiting import eventually

START_S = 120.0
_MARK = "BENCH_RUN"


class Failed(Exception):
    """A rival cannot be measured; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class RunningRival:
    """A rival that answers as scikit-learn does; `start_s` from start to the first response."""

    url: str
    body: bytes
    start_s: float
    mark: str

    def memory_bytes(self) -> int:
        """Return the memory of all its processes; shared pages count in proportion (PSS)."""
        return sum(proportional_bytes(pid) for pid in _marked(self.mark))


@contextmanager
def running_rival(
    rival: Rival, model: Path, *, rows: Rows, labels: list[object]
) -> Iterator[RunningRival]:
    """Run a rival on the server core; inside the block it has answered `rows` with `labels`.

    Args:
        model: folder with `model.joblib` and `model.onnx`.

    Raises:
        NotBuilt: its environment cannot be built.
        Failed: it does not start, or does not answer correctly.
    """
    port, mark = free_port(), uuid.uuid4().hex
    file = model / ("model.onnx" if rival.engine == "ONNX" else "model.joblib")
    url = f"http://127.0.0.1:{port}{rival.format.path}"
    body = orjson.dumps(rival.format.body(rows))
    python = python_of(rival.folder)
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environment = _environment(python, folder) | {
            _MARK: mark,
            "BENCH_PORT": str(port),
            "BENCH_MODEL": str(file),
            "BENCH_BATCHING": str(int(rival.batching)),
            "BENCH_FOLDER": name,
        }
        started = time.perf_counter()
        process = start_process(
            *on_server_core(str(python), "app.py"),
            environment=environment,
            folder=APPS / rival.folder,
            log=folder / "log",
        )
        try:
            answer = _first_answer(url, body, process=process, log=folder / "log")
            start_s = time.perf_counter() - started
            if rival.format.labels(answer) != labels:
                raise Failed(f"its answer differs from scikit-learn's: {answer!r}"[:200])
            yield RunningRival(url, body, start_s, mark)
        finally:
            stop_process(process, within_s=15)
            _end_marked(mark)


def _environment(python: Path, folder: Path) -> dict[str, str]:
    """Return variables that make a rival use one thread, and keep its statistics to itself."""
    return {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(APPS / "common"),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
    }


def _first_answer(url: str, body: bytes, *, process: Process, log: Path) -> object:
    """Send the request until it is answered with 200; return the answer's JSON."""
    headers = {"Content-Type": "application/json"}
    last = "no answer"

    def answered() -> httpx.Response | None:
        nonlocal last
        if process.poll() is not None:
            raise Failed(f"it ended: {' '.join(end_of(log).split())[-200:]}")
        with suppress(httpx.TransportError):
            response = client.post(url, content=body, headers=headers)
            if response.status_code == 200:
                return response
            last = f"{response.status_code} {response.text}"
        return None

    with httpx.Client(trust_env=False, timeout=10) as client:
        try:
            response: httpx.Response = eventually(answered, within_s=START_S, every_s=0.1)
        except AssertionError as error:
            raise Failed(f"not ready within {START_S:g} s: {last}"[:200]) from error
    return response.json()


def _marked(mark: str) -> list[int]:
    """Return the pids of the processes that inherited a mark."""
    variable, pids = f"{_MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable in (folder / "environ").read_bytes().split(b"\0"):
                pids.append(int(folder.name))
    return pids


def _end_marked(mark: str) -> None:
    """Kill what a rival left behind."""
    for pid in _marked(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not _marked(mark))
