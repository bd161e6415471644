"""The Prometheus metrics that every service has."""

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from services.common.telemetry.series import LoopCounter, LoopHistogram

_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The Prometheus registry of one app, with the request metrics of every service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = LoopCounter(
            "http_requests",
            "Completed requests by route template.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = LoopHistogram(
            "http_request_duration_seconds",
            "Time from the first byte of a request's headers to the last byte of its response.",
            ["method", "route"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "http_requests_in_progress", "Requests in progress.", registry=self.registry
        )
        self.ready = Gauge(
            "service_ready",
            "Latest result of /readyz: 1 if ready; 0 if not ready or not checked yet.",
            registry=self.registry,
        )
