"""What an operator can see of metering."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.inference.metering.journal import Journal


class MeteringMetrics:
    """Counters and gauges of the journal and its shipping."""

    def __init__(self, registry: CollectorRegistry, journal: Journal) -> None:
        self.shipped = Counter(
            "usage_events_shipped", "Usage events billing has taken as new.", registry=registry
        )
        self.duplicates = Counter(
            "usage_events_duplicates", "Usage events billing already had.", registry=registry
        )
        self.conflicts = Counter(
            "usage_events_conflicts",
            "Usage events whose id billing knows with another content.",
            registry=registry,
        )
        self.rejected = Counter(
            "usage_events_rejected", "Usage events kept as dead letters.", registry=registry
        )
        depth = Gauge(
            "usage_journal_unshipped_bytes", "Usage waiting for billing.", registry=registry
        )
        depth.set_function(lambda: journal.unshipped_bytes)
        sequence = Gauge(
            "usage_journal_last_sequence", "Events this run has journalled.", registry=registry
        )
        sequence.set_function(lambda: journal.last)
        self.oldest_age = Gauge(
            "usage_journal_oldest_unshipped_seconds",
            "How long the oldest usage event has waited for billing; 0 if none does.",
            registry=registry,
        )
