"""Prometheus metrics of the prediction endpoint."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from registry.records import Manifest
from services.common.telemetry.metrics import Metrics
from services.common.telemetry.series import Count, Distribution, LoopCounter


class PredictMetrics:
    """Counts predictions by model and version, and times them as HTTP requests.

    Args:
        metrics: the service's HTTP metrics.
    """

    def __init__(self, metrics: Metrics) -> None:
        registry: CollectorRegistry = metrics.registry
        self._requests = metrics.requests
        self._seconds = metrics.seconds
        self._success = LoopCounter(
            "tollgate_inference_predictions",
            "Successful predictions.",
            ["model", "version"],
            registry=registry,
        )
        self._rows = LoopCounter(
            "tollgate_inference_rows",
            "Rows predicted.",
            ["model", "version"],
            registry=registry,
        )
        self._failure = LoopCounter(
            "tollgate_inference_failures",
            "Rejected or failed predictions.",
            ["model", "status"],
            registry=registry,
        )
        self._in_flight = Gauge(
            "tollgate_inference_requests_in_flight", "Predictions in progress.", registry=registry
        )
        self._bytes_in_flight = Gauge(
            "tollgate_inference_request_bytes",
            "Bytes of prediction requests in memory, complete or not.",
            registry=registry,
        )
        # Looking up a labelled counter costs more than incrementing it, so each lookup is cached.
        self._of_version: dict[tuple[str, str], tuple[Count, Count]] = {}
        self._of_route: dict[tuple[str, int], tuple[Count, Distribution]] = {}

    def count_in_flight(self, *, requests: Callable[[], int], size: Callable[[], int]) -> None:
        """Expose the number of predictions in progress and the memory of requests in bytes."""
        self._in_flight.set_function(requests)
        self._bytes_in_flight.set_function(size)

    def answered(self, manifest: Manifest, *, requests: int, rows: int) -> None:
        """Count successful predictions of a version."""
        key = manifest.model, manifest.version
        counters = self._of_version.get(key)
        if counters is None:
            counters = self._success.labels(*key), self._rows.labels(*key)
            self._of_version[key] = counters
        predictions, rows_predicted = counters
        predictions.value += requests
        rows_predicted.value += rows

    def refused(self, model: str, status: int) -> None:
        """Count a failed prediction; `model` is "" unless it is being served."""
        self._failure.labels(model, status).inc()

    def observe(self, route: str, status: int, *seconds: float) -> None:
        """Count and time requests, whatever their outcome; `route` is a path template."""
        key = route, status
        series = self._of_route.get(key)
        if series is None:
            counter = self._requests.labels("POST", route, status)
            series = self._of_route[key] = counter, self._seconds.labels("POST", route)
        requests, duration = series
        requests.value += len(seconds)
        for each in seconds:
            duration.observe(each)
