"""The event loop's counters and histograms read like those of prometheus_client."""

import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from services.common.telemetry.series import LoopCounter, LoopHistogram

BOUNDS = (0.001, 0.01, 0.5, 1, 10)
VALUES = (0.0, 0.001, 0.0010001, 0.3, 0.5, 1, 1.5, 10, 11, 1e9)


@pytest.fixture(autouse=True)
def _frozen_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Create all series at the same moment."""
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.25)


def exposed(*, counter: Any, histogram: Any) -> list[bytes]:
    """Return what a scrape reads after the same observations."""
    registry = CollectorRegistry()
    requests = counter("things", "Things.", ["route", "status"], registry=registry)
    untouched = counter("nothing", "Nothing.", ["route"], registry=registry)
    bare = counter("bare", "Without labels.", registry=registry)
    seconds = histogram("t_seconds", 'A "time".', ["route"], buckets=BOUNDS, registry=registry)
    lag = histogram("lag_seconds", "Without labels.", buckets=BOUNDS, registry=registry)
    for status in (200, "200", 404):
        requests.labels('/v1/{m}"\n', status).inc()
        requests.labels('/v1/{m}"\n', status).inc(2.5)
    for value in VALUES:
        seconds.labels("/a").observe(value)
        seconds.labels("/b").observe(value / 2)
    assert untouched is not bare
    (bare.labels() if counter is LoopCounter else bare).inc(3)
    (lag.labels() if histogram is LoopHistogram else lag).observe(0.02)
    strict = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    return [generate_latest(registry), strict]


def test_a_scrape_reads_what_prometheus_client_would_expose() -> None:
    theirs = exposed(counter=Counter, histogram=Histogram)
    ours = exposed(counter=LoopCounter, histogram=LoopHistogram)

    assert ours == theirs
    assert b't_seconds_bucket{le="0.001",route="/a"} 2.0' in ours[0]


def test_a_series_without_labels_is_exposed_before_its_first_value() -> None:
    registry = CollectorRegistry()

    LoopHistogram("lag_seconds", "Lag.", buckets=BOUNDS, registry=registry)

    assert registry.get_sample_value("lag_seconds_count") == 0


def test_each_combination_of_labels_is_one_series() -> None:
    counter = LoopCounter("things", "Things.", ["status"], registry=CollectorRegistry())

    assert counter.labels(200) is counter.labels("200")
    assert counter.labels(200) is not counter.labels(404)


def test_a_wrong_number_of_labels_is_refused() -> None:
    counter = LoopCounter("things", "Things.", ["status"], registry=CollectorRegistry())

    with pytest.raises(ValueError, match="'things' has 1 labels"):
        counter.labels("200", "x")
