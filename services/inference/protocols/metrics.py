"""Metrics of predictions, under the names operators of model servers look for."""

from prometheus_client import CollectorRegistry, Counter

from services.common.model_store import Manifest
from services.common.observe import Metrics


class PredictMetrics:
    """Counts predictions by model and version, and times them like any other request."""

    def __init__(self, metrics: Metrics, registry: CollectorRegistry) -> None:
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

    def answered(self, manifest: Manifest, rows: int) -> None:
        self._success.labels(manifest.model, manifest.version).inc()
        self._rows.labels(manifest.model, manifest.version).inc(rows)

    def refused(self, model: str, status: int) -> None:
        self._failure.labels(model, status).inc()

    def observe(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels("POST", route, status).inc()
        self._seconds.labels("POST", route).observe(seconds)
