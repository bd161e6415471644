"""Benchmarks of models: the cost of a poll for releases, and how soon a rollback takes effect."""

import asyncio
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from bench.figures import Figure
from harness.samples import PREDICT, WINE
from harness.services import ServiceProcesses
from harness.stores import PlatformStore
from harness.waiting import eventually
from registry.store import ModelStore
from services.inference.models.cache import ModelCache
from services.inference.models.loader import Loader
from services.inference.models.metrics import ModelMetrics
from services.inference.models.table import ModelTable
from services.inference.models.watcher import Watcher

MODEL = "wine"
FEW, MANY = 10, 10_000
POLLS = 200
POLL_S = 2.0
"""The default of INFERENCE_MODEL_POLL_SECONDS, which the measured service uses."""


async def polls(platform: ServiceProcesses) -> Figure:
    """Time a poll that finds nothing new, in a folder with few releases and in one with many."""
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
        watchers = {
            count: await _watcher(platform, Path(folder) / str(count), releases=count)
            for count in (FEW, MANY)
        }
        times: dict[int, list[float]] = {count: [] for count in watchers}
        for _ in range(POLLS):
            for count, watcher in watchers.items():
                started = time.perf_counter()
                await watcher.poll()
                times[count].append(time.perf_counter() - started)
    few, many = (1000 * statistics.median(times[count]) for count in (FEW, MANY))
    return Figure(
        f"a poll at {FEW} releases ÷ one at {MANY:,}",
        few / many,
        "×",
        f"{few:.2f} and {many:.2f} ms, {POLLS} polls each",
        at_least=round(1 / 1.2, 2),
    )


async def _watcher(platform: ServiceProcesses, folder: Path, *, releases: int) -> Watcher:
    """Return a watcher that has polled a copy of the platform's store with that many releases."""
    shutil.copytree(platform.home / "models" / MODEL, folder / "models" / MODEL)
    store = ModelStore(f"file://{folder}/models")
    platform_store = PlatformStore(platform.home)
    last = platform_store.live(MODEL)
    for number in range(last.number + 1, releases + 1):
        record = last.model_copy(update={"number": number, "previous": number - 1})
        path = folder / "models" / MODEL / "releases" / f"{number:08d}.json"
        path.write_text(record.model_dump_json())
    metrics = ModelMetrics(CollectorRegistry())
    table = ModelTable(max_bytes=0, metrics=metrics)
    cache = ModelCache(store, platform_store.trusted, folder=folder / "cache", max_bytes=2**30)
    loader = Loader(cache, table, allow_joblib=False, metrics=metrics)
    watcher = Watcher(
        store,
        cache,
        loader,
        table,
        poll_s=POLL_S,
        canary_refused=lambda *_: None,  # no release here has one
        metrics=metrics,
    )
    await watcher.poll()
    return watcher


def rollback(platform: ServiceProcesses) -> Figure:
    """Release a second version, roll it back under load, and find its last response."""
    store = PlatformStore(platform.home)
    new = store.publish_copy(MODEL)
    platform.run("models", "release", MODEL, "--to", new).check_returncode()
    with _predicting(platform) as responses:
        eventually(lambda: responses and responses[-1][1] == new)
        started = time.time()
        platform.run("models", "rollback", MODEL, "--reason", "bench").check_returncode()
        eventually(lambda: responses[-1][1] != new)
        time.sleep(1)  # for an old response that should not come
    record = store.live(MODEL)
    last = max(moment for moment, version in responses if version == new)
    return Figure(
        "rollback to the last response of the old version",
        1000 * (last - record.time.timestamp()),
        "ms",
        f"{last - started:.1f} s after the command started, polling every {POLL_S:g} s",
        at_most=1000 * (POLL_S + 1),
    )


@contextmanager
def _predicting(platform: ServiceProcesses) -> Iterator[list[tuple[float, str]]]:
    """Send predictions one after another; yield when each was answered, and by which version."""
    responses: list[tuple[float, str]] = []
    stop = threading.Event()

    def predict() -> None:
        with platform.client("inference", platform.new_token()) as inference:
            while not stop.is_set():
                response = inference.post(PREDICT, json={"instances": [WINE]})
                response.raise_for_status()
                responses.append((time.time(), response.headers["X-Model-Version"]))

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        yield responses
    finally:
        stop.set()
        thread.join()


async def models(platform: ServiceProcesses) -> list[Figure]:
    """Run all benchmarks of this module."""
    return [await polls(platform), await asyncio.to_thread(rollback, platform)]
