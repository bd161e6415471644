"""Drift: compare live inputs and predictions of each version with its training data.

Requests only leave their arrays behind. Once a second the arrays are counted off the event loop in
the bins of the manifest. The metrics cover the last 15 to 30 minutes of this process, for each
version that has statistics.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from registry.drift import Bins, Counts
from registry.features import column_values
from registry.records import Manifest, Statistics
from services.inference.models.table import LoadedModel
from services.inference.monitoring.answered import AnsweredRequest

COUNT_S = 1.0
HALF_WINDOW_S = 900.0
MAX_BYTES = 32 << 20
MIN_ROWS = 500
"""Minimum rows for an index: by chance alone it is about (bins − 1) ÷ rows."""


@dataclass(slots=True)
class Window:
    """Counts of one version: one entry per column, then one for its predictions."""

    bins: list[Bins]
    began: float
    current: list[Counts] = field(init=False)
    previous: list[Counts] = field(init=False)

    def __post_init__(self) -> None:
        self.current = self._zeros()
        self.previous = self._zeros()

    @property
    def counts(self) -> list[Counts]:
        return [now + before for now, before in zip(self.current, self.previous, strict=True)]

    @property
    def rows(self) -> int:
        return int(self.counts[-1].sum())

    def add(self, counts: list[Counts]) -> None:
        """Add the counts of more rows."""
        self.current = [old + new for old, new in zip(self.current, counts, strict=True)]

    def roll(self, now: float, *, half_window_s: float) -> None:
        """Start a new half window if this one is over, and drop the one before it."""
        if now - self.began >= half_window_s:
            self.previous, self.current = self.current, self._zeros()
            self.began = now

    def _zeros(self) -> list[Counts]:
        return [np.zeros(each.size + 1, dtype=np.int64) for each in self.bins]


class DriftMonitor(Collector):
    """Samples predictions, and exposes how they differ from training as metrics.

    Args:
        registry: the metrics registry; the metrics are computed when it is scraped.
        rows_per_second: maximum rows sampled per version and second; 0 turns sampling off.
        max_bytes: maximum bytes of requests waiting to be counted; more are not sampled.
        count_s: seconds between two counts.
        half_window_s: a version's rows are dropped after one to two of these, in seconds.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        rows_per_second: int,
        max_bytes: int = MAX_BYTES,
        count_s: float = COUNT_S,
        half_window_s: float = HALF_WINDOW_S,
    ) -> None:
        self._rows_per_second = rows_per_second
        self._max_bytes = max_bytes
        self._count_s = count_s
        self._half_window_s = half_window_s
        self._left: dict[str, int] = {}
        self._bytes = 0
        self._samples: list[tuple[LoadedModel, AnsweredRequest]] = []
        self._windows: dict[tuple[str, str], Window] = {}
        self._counting = threading.Lock()
        registry.register(self)

    def sample(self, model: LoadedModel, answered: Sequence[AnsweredRequest]) -> None:
        """Keep requests until they are counted, as far as there is room."""
        version = model.manifest.version
        left = self._left.get(version, self._rows_per_second)
        if left <= 0 or model.manifest.statistics is None:
            return
        for each in answered:
            rows = len(each.predictions)
            size = each.size * min(rows, left) // rows
            if self._bytes + size > self._max_bytes:
                continue
            self._bytes += size
            self._samples.append((model, each if rows <= left else _first_rows(each, left)))
            left -= rows
            if left <= 0:
                break
        self._left[version] = left

    async def run(self) -> None:
        """Count the samples regularly; cancel to stop."""
        while True:
            await asyncio.sleep(self._count_s)
            samples, self._samples = self._samples, []
            self._left.clear()
            self._bytes = 0
            await asyncio.to_thread(self._count, samples)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of every version that has enough rows."""
        by_version = ["model", "version"]
        rows = GaugeMetricFamily(
            "tollgate_drift_rows", "Rows in the drift window.", labels=by_version
        )
        psi = GaugeMetricFamily(
            "tollgate_drift_column_psi",
            "Population stability index of a column against training.",
            labels=[*by_version, "column"],
        )
        missing = GaugeMetricFamily(
            "tollgate_drift_column_missing_ratio",
            "Share of rows with a missing value in a column.",
            labels=[*by_version, "column"],
        )
        predictions = GaugeMetricFamily(
            "tollgate_drift_prediction_psi",
            "Population stability index of predictions against those on the held-out rows.",
            labels=by_version,
        )
        shares = GaugeMetricFamily(
            "tollgate_drift_prediction_ratio",
            "Share of predictions in a bin.",
            labels=[*by_version, "bin"],
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
            predictions.add_metric(key, bins[-1].stability(counts[-1]))
            for name, count in zip(bins[-1].names(), counts[-1], strict=False):
                shares.add_metric([*key, name], count / total)
        yield from (rows, psi, missing, predictions, shares)

    def _count(self, samples: list[tuple[LoadedModel, AnsweredRequest]]) -> None:
        by_version: defaultdict[tuple[str, str], list[AnsweredRequest]] = defaultdict(list)
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
                window.roll(now, half_window_s=self._half_window_s)
                if not window.rows:
                    del self._windows[key]


def _first_rows(answered: AnsweredRequest, rows: int) -> AnsweredRequest:
    """Return a copy of the first rows, so that the rest of a large request can be freed."""
    arrays = {name: array[:rows].copy() for name, array in answered.arrays.items()}
    return answered._replace(arrays=arrays, predictions=answered.predictions[:rows])


def _bins(statistics: Statistics | None) -> list[Bins]:
    if statistics is None:
        return []
    return [Bins(each) for each in (*statistics.columns, statistics.predictions)]


def _counts(manifest: Manifest, samples: list[AnsweredRequest]) -> list[Counts]:
    """Return the counts of each column and of the predictions."""
    names = samples[0].arrays
    arrays = {name: np.concatenate([each.arrays[name] for each in samples]) for name in names}
    *features, predictions = _bins(manifest.statistics)
    counts = [each.count(column_values(arrays, i)) for i, each in enumerate(features)]
    labels = [label for each in samples for label in each.predictions]
    kind = np.float64 if manifest.signature.classes is None else object
    return [*counts, predictions.count(np.array(labels, dtype=kind))]
