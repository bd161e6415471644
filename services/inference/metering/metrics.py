"""Metrics of the usage journal and its shipping."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.inference.metering.journal.journal import Journal


class MeteringMetrics:
    """The counters and gauges of the journal and the shipper."""

    def __init__(self, registry: CollectorRegistry, journal: Journal) -> None:
        self.shipped = Counter(
            "tollgate_usage_events_shipped",
            "Usage events that billing accepted.",
            registry=registry,
        )
        self.duplicates = Counter(
            "tollgate_usage_events_duplicates",
            "Usage events that billing already had.",
            registry=registry,
        )
        self.conflicts = Counter(
            "tollgate_usage_events_conflicts",
            "Usage events whose id billing has with a different payload.",
            registry=registry,
        )
        self.rejected = Counter(
            "tollgate_usage_events_rejected",
            "Usage events written to the dead letters.",
            registry=registry,
        )
        depth = Gauge(
            "tollgate_usage_journal_unshipped_bytes",
            "Journalled bytes not yet shipped to billing.",
            registry=registry,
        )
        depth.set_function(lambda: journal.unshipped_bytes)
        sequence = Gauge(
            "tollgate_usage_journal_last_sequence",
            "Sequence of the last event in this run's journal.",
            registry=registry,
        )
        sequence.set_function(lambda: journal.last)
        self.oldest_age = Gauge(
            "tollgate_usage_journal_oldest_unshipped_seconds",
            "Age of the oldest unshipped usage event; 0 without one.",
            registry=registry,
        )
