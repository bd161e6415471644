"""Counters and histograms for what the event loop counts on every request.

They are exposed exactly like those of prometheus_client. Those take a lock and several calls for
each number, which costs as much as a quick prediction; these must only be used on one thread.
"""

import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """One series of a counter."""

    __slots__ = ("created", "value")

    def __init__(self) -> None:
        self.created = time.time()
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add to the count."""
        self.value += amount


class Distribution:
    """One series of a histogram."""

    __slots__ = ("bounds", "counts", "created", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.created = time.time()
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """How many values are in each bucket alone; the last one has no upper bound."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


S = TypeVar("S", Count, Distribution)


class _Family(Collector, ABC, Generic[S]):
    """All series of one metric; `labels` returns one of them, to be kept by the caller."""

    kind: str

    def __init__(
        self, name: str, help: str, labels: Sequence[str] = (), *, registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._help = help
        self._labels = tuple(labels)
        self._series: dict[tuple[str, ...], S] = {}
        self._found: dict[tuple[str | int, ...], S] = {}
        """The series by label values as they were given."""
        if not labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str | int) -> S:
        """Return the series with these label values."""
        series = self._found.get(values)
        if series is None:
            texts = tuple(map(str, values))
            if len(texts) != len(self._labels):
                raise ValueError(f"'{self._name}' has {len(self._labels)} labels.")
            series = self._found[values] = self._series.setdefault(texts, self._new())
        return series

    def collect(self) -> Iterator[Metric]:
        """Yield the metric with the current values of all series."""
        metric = Metric(self._name, self._help, self.kind)
        for values, series in self._series.items():
            self._add(metric, dict(zip(self._labels, values, strict=True)), series)
        yield metric

    @abstractmethod
    def _new(self) -> S: ...

    @abstractmethod
    def _add(self, metric: Metric, labels: dict[str, str], series: S) -> None: ...


class LoopCounter(_Family[Count]):
    """A counter that only the event loop's thread uses."""

    kind = "counter"

    def _new(self) -> Count:
        return Count()

    def _add(self, metric: Metric, labels: dict[str, str], series: Count) -> None:
        metric.add_sample(f"{self._name}_total", labels, series.value)
        metric.add_sample(f"{self._name}_created", labels, series.created)


class LoopHistogram(_Family[Distribution]):
    """A histogram that only the event loop's thread uses.

    Args:
        buckets: the upper bounds, ascending and without infinity.
    """

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._bounds = tuple(map(float, buckets))
        super().__init__(name, help, labels, registry=registry)

    def _new(self) -> Distribution:
        return Distribution(self._bounds)

    def _add(self, metric: Metric, labels: dict[str, str], series: Distribution) -> None:
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), series.counts, strict=True):
            total += count
            le = floatToGoString(bound)  # type: ignore[no-untyped-call]  # an untyped library
            metric.add_sample(f"{self._name}_bucket", {**labels, "le": le}, total)
        metric.add_sample(f"{self._name}_count", labels, total)
        metric.add_sample(f"{self._name}_sum", labels, series.sum)
        metric.add_sample(f"{self._name}_created", labels, series.created)
