"""Metrics of canaries and shadows."""

from prometheus_client import CollectorRegistry, Counter


class RolloutMetrics:
    """Counters of canaries and shadows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.canary = Counter(
            "tollgate_canary_requests",
            "Requests sent to a canary, by outcome; failed ones were answered by the live version.",
            ["model", "version", "outcome"],
            registry=registry,
        )
        self.stopped = Counter(
            "tollgate_canary_stops",
            "Canaries stopped because they were worse than the live version.",
            ["model"],
            registry=registry,
        )
        self.unwritten = Counter(
            "tollgate_canary_rollback_failures",
            "Failed attempts to write an automatic rollback.",
            ["model"],
            registry=registry,
        )
        self.shadow = Counter(
            "tollgate_shadow_rows",
            "Rows computed by a shadow: it agreed, disagreed or failed.",
            ["model", "version", "outcome"],
            registry=registry,
        )
        self.dropped = Counter(
            "tollgate_shadow_requests_dropped",
            "Requests dropped because the shadow was too busy.",
            ["model"],
            registry=registry,
        )
