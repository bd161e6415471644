"""Metrics of versions that are tried beside the live one."""

from prometheus_client import CollectorRegistry, Counter


class RolloutMetrics:
    """The counters that canaries and shadows share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.canary = Counter(
            "model_canary_requests",
            "Requests that a canary answered, or failed and left to the live version.",
            ["model", "version", "outcome"],
            registry=registry,
        )
        self.stopped = Counter(
            "model_canary_stopped",
            "Canaries that this process found worse than the live version.",
            ["model"],
            registry=registry,
        )
        self.unwritten = Counter(
            "model_canary_rollback_failures",
            "Tries to write an automatic rollback that failed.",
            ["model"],
            registry=registry,
        )
        self.shadow = Counter(
            "model_shadow_rows",
            "Rows that a shadow computed as well: it agreed, disagreed, or failed.",
            ["model", "version", "outcome"],
            registry=registry,
        )
        self.dropped = Counter(
            "model_shadow_dropped",
            "Requests that a shadow was too busy for.",
            ["model"],
            registry=registry,
        )
