"""Drift: what a version is asked, and what it answers, beside what it was trained on.

Requests only leave their arrays behind; once a second they are counted off the event loop, in the
bins that the manifest has. What is told is of the last quarter to half hour, of this process, and
for each version that has statistics.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.common.model_records import Manifest, Statistics
from services.inference.drift.bins import Bins, Counts
from services.inference.models.inputs import Arrays
from services.inference.models.registry import LoadedModel

COUNT_S = 1.0
HALF_WINDOW_S = 900.0
MAX_BYTES = 32 << 20
"""Bytes of requests that wait to be counted; what does not fit is not sampled."""
MIN_ROWS = 500
"""Fewer rows tell nothing: by chance alone their index is about (bins − 1) ÷ rows."""


class Sample(NamedTuple):
    """Rows of one request, and what was answered to them."""

    arrays: Arrays
    predictions: list[Any]


@dataclass(slots=True)
class Window:
    """Counts of one version, column by column and then of its answers."""

    bins: list[Bins]
    began: float
    current: list[Counts] = field(init=False)
    previous: list[Counts] = field(init=False)

    def __post_init__(self) -> None:
        self.current = self._nothing()
        self.previous = self._nothing()

    @property
    def counts(self) -> list[Counts]:
        return [now + before for now, before in zip(self.current, self.previous, strict=True)]

    @property
    def rows(self) -> int:
        return int(self.counts[-1].sum())

    def add(self, counts: list[Counts]) -> None:
        """Count more rows."""
        self.current = [old + new for old, new in zip(self.current, counts, strict=True)]

    def roll(self, now: float) -> None:
        """Forget what is older than the half window before this one."""
        if now - self.began >= HALF_WINDOW_S:
            self.previous, self.current = self.current, self._nothing()
            self.began = now

    def _nothing(self) -> list[Counts]:
        return [np.zeros(each.size + 1, dtype=np.int64) for each in self.bins]


class DriftWatch(Collector):
    """Samples predictions, and exposes how they differ from training.

    Args:
        registry: where the metrics go; they are computed when it is scraped.
        rows_per_second: of each version, the first of every second; 0 watches nothing.
    """

    def __init__(self, registry: CollectorRegistry, *, rows_per_second: int) -> None:
        self._rows_per_second = rows_per_second
        self._left: dict[str, int] = {}
        self._bytes = 0
        self._samples: list[tuple[LoadedModel, Sample]] = []
        self._windows: dict[tuple[str, str], Window] = {}
        self._counting = threading.Lock()
        registry.register(self)

    def take(
        self, model: LoadedModel, arrays: Arrays, predictions: list[Any], *, size: int
    ) -> None:
        """Remember an answered request of `size` bytes until it is counted, if there is room."""
        version = model.manifest.version
        left = self._left.get(version, self._rows_per_second)
        if left <= 0 or model.manifest.statistics is None:
            return
        rows = len(predictions)
        if self._bytes + size * min(rows, left) // rows > MAX_BYTES:
            return
        self._bytes += size * min(rows, left) // rows
        if rows > left:  # copied, so that the rest of a large request is not kept
            arrays = {name: array[:left].copy() for name, array in arrays.items()}
            predictions = predictions[:left]
        self._left[version] = left - rows
        self._samples.append((model, Sample(arrays, predictions)))

    async def run(self) -> None:
        """Count what was taken, for ever; cancel to stop."""
        while True:
            await asyncio.sleep(COUNT_S)
            samples, self._samples = self._samples, []
            self._left.clear()
            self._bytes = 0
            await asyncio.to_thread(self._count, samples)

    def collect(self) -> Iterator[Metric]:
        """The metrics, of every version that has enough rows."""
        by_version = ["model", "version"]
        rows = GaugeMetricFamily(
            "model_drift_rows", "Rows that drift was measured on.", labels=by_version
        )
        psi = GaugeMetricFamily(
            "model_column_psi",
            "Population stability index of a column against training.",
            labels=[*by_version, "column"],
        )
        missing = GaugeMetricFamily(
            "model_column_missing_share",
            "Share of the rows without a value in a column.",
            labels=[*by_version, "column"],
        )
        answers = GaugeMetricFamily(
            "model_prediction_psi",
            "Population stability index of the answers against those on the rows held out.",
            labels=by_version,
        )
        shares = GaugeMetricFamily(
            "model_prediction_share", "Share of the answers in a bin.", labels=[*by_version, "bin"]
        )
        with self._counting:
            found = {key: (each.bins, each.counts) for key, each in self._windows.items()}
        for key, (bins, counts) in found.items():
            total = int(counts[-1].sum())
            rows.add_metric(key, total)
            if total < MIN_ROWS:
                continue
            for column, count in zip(bins[:-1], counts[:-1], strict=True):
                labels = [*key, column.recorded.name]
                psi.add_metric(labels, column.stability(count))
                missing.add_metric(labels, count[-1] / total)
            answers.add_metric(key, bins[-1].stability(counts[-1]))
            for name, count in zip(bins[-1].names(), counts[-1], strict=False):
                shares.add_metric([*key, name], count / total)
        yield from (rows, psi, missing, answers, shares)

    def _count(self, samples: list[tuple[LoadedModel, Sample]]) -> None:
        by_version: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
        manifests: dict[tuple[str, str], Manifest] = {}
        for model, sample in samples:
            key = model.manifest.model, model.manifest.version
            by_version[key].append(sample)
            manifests[key] = model.manifest
        now = time.monotonic()
        counted = {key: _counts(manifests[key], taken) for key, taken in by_version.items()}
        with self._counting:
            for key, counts in counted.items():
                window = self._windows.get(key)
                if window is None:
                    bins = _bins(manifests[key].statistics)
                    window = self._windows[key] = Window(bins, began=now)
                window.add(counts)
            for key, window in list(self._windows.items()):
                window.roll(now)
                if not window.rows:
                    del self._windows[key]


def _bins(statistics: Statistics | None) -> list[Bins]:
    if statistics is None:
        return []
    return [Bins(each) for each in (*statistics.columns, statistics.predictions)]


def _counts(manifest: Manifest, samples: list[Sample]) -> list[Counts]:
    """The counts of each column, and of the answers."""
    names = samples[0].arrays
    arrays = {name: np.concatenate([each.arrays[name] for each in samples]) for name in names}
    columns = np.hstack(list(arrays.values())) if len(arrays) == 1 else None
    *features, answers = _bins(manifest.statistics)
    counts = [
        each.count(arrays[f"column_{i}"].ravel() if columns is None else columns[:, i])
        for i, each in enumerate(features)
    ]
    told = [label for each in samples for label in each.predictions]
    kind = np.float64 if manifest.signature.classes is None else object
    return [*counts, answers.count(np.array(told, dtype=kind))]
