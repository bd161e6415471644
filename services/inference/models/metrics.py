"""Metrics of live, loaded and refused versions, and of the model store."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from registry.records import VersionNotFound, VersionRefused


class ModelMetrics:
    """Counters and gauges shared by the table, the loader and the watcher."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.live = Gauge(
            "tollgate_model_live_release",
            "Number of the live release.",
            ["model", "version"],
            registry=registry,
        )
        self.canary = Gauge(
            "tollgate_model_canary_percent",
            "Share of the callers that the canary beside the live release answers, in percent.",
            ["model", "version"],
            registry=registry,
        )
        self.loaded = Gauge(
            "tollgate_model_loaded_versions", "Versions in memory.", registry=registry
        )
        self.loaded_bytes = Gauge(
            "tollgate_model_loaded_bytes",
            "Model file bytes of the versions in memory.",
            registry=registry,
        )
        self.loads = Counter(
            "tollgate_model_loads",
            "Loads of versions into memory, repeats included.",
            registry=registry,
        )
        self.refused = Counter(
            "tollgate_model_versions_refused",
            "Versions and releases refused, by reason.",
            ["model", "reason"],
            registry=registry,
        )
        self.store_failures = Counter(
            "tollgate_model_store_failures",
            "Failed reads of the model store.",
            registry=registry,
        )
        self.store_reachable = Gauge(
            "tollgate_model_store_reachable",
            "1 if the last read of the model store succeeded, else 0.",
            registry=registry,
        )

    def count_refusal(self, model: str, error: VersionNotFound | VersionRefused) -> None:
        """Count a refused version or release."""
        reason = error.reason if isinstance(error, VersionRefused) else "missing"
        self.refused.labels(model, reason).inc()
