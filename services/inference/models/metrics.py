"""Metrics of the models: what is live, what is in memory, what was refused."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.common.model_store import VersionNotFound, VersionRefused


class ModelMetrics:
    """The counters and gauges that the slice's parts share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.live = Gauge(
            "model_live_release",
            "Number of the release being served.",
            ["model", "version"],
            registry=registry,
        )
        self.loaded = Gauge("model_loaded_versions", "Versions in memory.", registry=registry)
        self.loaded_bytes = Gauge(
            "model_loaded_bytes", "Sizes of the files of the versions in memory.", registry=registry
        )
        self.loads = Counter(
            "model_loads", "Versions loaded into memory, repeats included.", registry=registry
        )
        self.refused = Counter(
            "model_versions_refused",
            "Versions that were not served because something about them did not hold.",
            ["model", "reason"],
            registry=registry,
        )
        self.store_failures = Counter(
            "model_store_failures", "Looks at the model store that failed.", registry=registry
        )
        self.store_reachable = Gauge(
            "model_store_reachable",
            "1 if the last look at the model store succeeded, else 0.",
            registry=registry,
        )

    def count_refusal(self, model: str, error: VersionNotFound | VersionRefused) -> None:
        """Count something of the store that was not served, by what did not hold."""
        reason = error.reason if isinstance(error, VersionRefused) else "missing"
        self.refused.labels(model, reason).inc()
