"""Metrics of predictions, under the names operators of model servers look for."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.common.model_store import Manifest
from services.common.observe import Metrics


class PredictMetrics:
    """Counts predictions by model and version, and times them like any other request.

    Args:
        metrics: the service's request metrics.
        route: the template under which predictions count there.
    """

    def __init__(self, metrics: Metrics, *, route: str) -> None:
        registry: CollectorRegistry = metrics.registry
        self._requests = metrics.requests
        self._route = route
        self._seconds = metrics.seconds.labels("POST", route)
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
        # Looking up a labelled counter costs more than counting, so each is looked up once.
        self._of_version: dict[tuple[str, str], tuple[Counter, Counter]] = {}
        self._of_status: dict[int, Counter] = {}

    def count_in_flight(self, taken: Callable[[], int]) -> None:
        """Tell how many predictions are being answered; `taken` is asked at each scrape."""
        self._in_flight.set_function(taken)

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

    def observe(self, status: int, seconds: float) -> None:
        """Count and time a request, however it ended."""
        counter = self._of_status.get(status)
        if counter is None:
            counter = self._of_status[status] = self._requests.labels("POST", self._route, status)
        counter.inc()
        self._seconds.observe(seconds)
