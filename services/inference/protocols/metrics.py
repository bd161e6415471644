"""Metrics of predictions, under the names operators of model servers look for."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.common.model_store import Manifest
from services.common.observe import Metrics


class PredictMetrics:
    """Counts predictions by model and version, and times them like any other request.

    Args:
        metrics: the service's request metrics.
    """

    def __init__(self, metrics: Metrics) -> None:
        registry: CollectorRegistry = metrics.registry
        self._requests = metrics.requests
        self._seconds = metrics.seconds
        self._success = Counter(
            "model_infer_request_success",
            "Predictions answered.",
            ["model_name", "model_version"],
            registry=registry,
        )
        self._rows = Counter(
            "model_infer_rows",
            "Rows predicted.",
            ["model_name", "model_version"],
            registry=registry,
        )
        self._failure = Counter(
            "model_infer_request_failure",
            "Predictions refused or failed.",
            ["model_name", "status"],
            registry=registry,
        )
        self._in_flight = Gauge(
            "model_infer_requests_in_flight", "Predictions being answered.", registry=registry
        )
        self._bytes_in_flight = Gauge(
            "tollgate_inference_request_bytes",
            "Bytes of prediction requests in memory.",
            registry=registry,
        )
        # Looking up a labelled counter costs more than counting, so each is looked up once.
        self._of_version: dict[tuple[str, str], tuple[Counter, Counter]] = {}
        self._of_route: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def count_in_flight(self, *, requests: Callable[[], int], size: Callable[[], int]) -> None:
        """Expose how many predictions are being answered, and the bytes that requests keep."""
        self._in_flight.set_function(requests)
        self._bytes_in_flight.set_function(size)

    def answered(self, manifest: Manifest, rows: int) -> None:
        """Count a prediction of `rows` rows."""
        key = manifest.model, manifest.version
        counters = self._of_version.get(key)
        if counters is None:
            counters = self._success.labels(*key), self._rows.labels(*key)
            self._of_version[key] = counters
        counters[0].inc()
        counters[1].inc(rows)

    def refused(self, model: str, status: int) -> None:
        """Count a prediction that was not made; `model` is "" unless it is one we serve."""
        self._failure.labels(model, status).inc()

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count and time a request, however it ended; `route` is its path's template."""
        key = route, status
        series = self._of_route.get(key)
        if series is None:
            counter = self._requests.labels("POST", route, status)
            series = self._of_route[key] = counter, self._seconds.labels("POST", route)
        series[0].inc()
        series[1].observe(seconds)
