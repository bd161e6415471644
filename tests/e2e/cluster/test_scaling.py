"""The autoscalers under test metrics, 30 times as fast as in production; `make test-cluster`."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from harness.waiting import eventually
from tests.e2e.cluster.control_plane import Cluster
from tests.e2e.cluster.meter import CUSTOM, RESOURCE, Load, Meter, running_meter
from tests.e2e.cluster.release import Release, new_release
from tests.integration.deploy.chart import SERVICES, Manifest

pytestmark = pytest.mark.cluster

SPEED = 30
"""The controller checks every 0.5 s instead of every 15 s; the rules' times are scaled alike."""

MINUTE_S = 60 / SPEED
_SAMPLE_S = 0.1

Counts = dict[str, int]
History = list[tuple[float, Counts]]


@dataclass(frozen=True)
class Scaled:
    """A release whose three autoscalers get their metrics from `meter`."""

    release: Release
    meter: Meter

    def rules(self, service: str) -> Manifest:
        """Return the spec of a service's autoscaler."""
        spec: Manifest = self.release.get(*_SCALER, service)["spec"]
        return spec

    def counts(self) -> Counts:
        """Return the desired replicas of each service."""
        return {
            name: self.release.get("apps/v1", "Deployment", name)["spec"]["replicas"]
            for name in SERVICES
        }

    def require(self, counts: Counts, *, of: str) -> None:
        """Set the load that needs exactly this many replicas, in `cpus` or requests `in_flight`."""
        self.meter.loads = {
            name: Load(**{of: count * self._target(name, of)}) for name, count in counts.items()
        }

    def record_counts(
        self, minutes: float, act: Callable[[float], object] = lambda _: None
    ) -> History:
        """Return the counts over some minutes; call `act` with the fraction elapsed at each."""
        start = time.monotonic()
        history: History = []
        while (now := (time.monotonic() - start) / MINUTE_S) < minutes:
            act(now)
            history.append((now, self.counts()))
            time.sleep(_SAMPLE_S)
        return history

    def _target(self, service: str, of: str) -> float:
        """Return the target load of one pod."""
        cpu, in_flight = self.rules(service)["metrics"]
        if of == "in_flight":
            return float(in_flight["pods"]["target"]["averageValue"])
        workload = self.release.get("apps/v1", "Deployment", service)
        [container] = workload["spec"]["template"]["spec"]["containers"]
        request = container["resources"]["requests"]["cpu"]
        cpus = float(request[:-1]) / 1000 if request.endswith("m") else float(request)
        return cpus * float(cpu["resource"]["target"]["averageUtilization"]) / 100


_SCALER = ("autoscaling/v2", "HorizontalPodAutoscaler")


@pytest.fixture(scope="module")
def accelerated(cluster: Cluster) -> Iterator[Scaled]:
    """A release with both kinds of metrics and the chart's rules, except for their times."""
    with running_meter(cluster) as meter, new_release(cluster, "scaling", "observability") as new:
        for service in SERVICES:
            behavior = new.get(*_SCALER, service)["spec"]["behavior"]
            change = {"spec": {"behavior": accelerate(behavior)}}
            name, namespace = f"t-tollgate-{service}", new.namespace
            new.api.patch(*_SCALER, name, change, namespace=namespace)
        yield Scaled(new, meter)


@pytest.fixture
def scaled(accelerated: Scaled) -> Scaled:
    """The same release, idle and at its smallest."""
    accelerated.meter.loads, accelerated.meter.silent = {}, set()
    minimum = {name: accelerated.rules(name)["minReplicas"] for name in SERVICES}
    eventually(lambda: accelerated.counts() == minimum, within_s=30 * MINUTE_S)
    return accelerated


def accelerate(rules: Any) -> Any:
    """Return the rules with all their times divided."""
    if isinstance(rules, list):
        return [accelerate(each) for each in rules]
    if not isinstance(rules, dict):
        return rules
    return {
        key: value // SPEED if key.endswith("Seconds") else accelerate(value)
        for key, value in rules.items()
    }


def steps(history: History, service: str) -> list[tuple[float, int, int]]:
    """Return when a service's count changed, and its values before and after."""
    return [
        (then, before[service], after[service])
        for (_, before), (then, after) in pairwise(history)
        if before[service] != after[service]
    ]


def reversals(history: History, service: str) -> list[float]:
    """Return when a service's count reversed its direction."""
    directions = [(then, after > before) for then, before, after in steps(history, service)]
    return [then for (_, direction), (then, other) in pairwise(directions) if direction != other]


@pytest.mark.parametrize("of", ["cpus", "in_flight"])
def test_load_raises_every_service_at_once_and_its_end_lowers_it_slowly(
    scaled: Scaled, of: str
) -> None:
    minimum = scaled.counts()
    expected = {name: scaled.rules(name)["maxReplicas"] - 1 for name in SERVICES}

    scaled.require(expected, of=of)
    up = scaled.record_counts(4)
    scaled.meter.loads = {}
    down = scaled.record_counts(28)

    assert up[-1][1] == expected
    assert down[-1][1] == minimum
    for service in SERVICES:
        assert all(after <= max(2 * n, n + 2) for _, n, after in steps(up, service))
        first, *_ = falling = steps(down, service)
        assert 9.5 <= first[0] <= 13
        assert all(n - after == -(-n // 5) for _, n, after in falling)
        assert all(then - before >= 1.5 for (before, *_), (then, *_) in pairwise(falling))


def test_load_beyond_the_maximum_adds_no_replicas(scaled: Scaled) -> None:
    maximum = {name: scaled.rules(name)["maxReplicas"] for name in SERVICES}

    scaled.require({name: 5 * count for name, count in maximum.items()}, of="cpus")

    assert scaled.record_counts(5)[-1][1] == maximum


def test_a_fluctuating_load_does_not_make_the_counts_fluctuate(
    scaled: Scaled,
) -> None:
    maximum = {name: scaled.rules(name)["maxReplicas"] for name in SERVICES}
    minutes = dict(zip(SERVICES, (2, 5, 9, 7), strict=True))

    def saw_tooth(now: float) -> None:
        teeth = {name: now / minutes[name] % 1 for name in SERVICES}
        scaled.require({name: round(teeth[name] * maximum[name]) for name in SERVICES}, of="cpus")

    history = scaled.record_counts(30, saw_tooth)

    for service in SERVICES:
        reversed_at = reversals(history, service)
        assert all(later - earlier > 5 for earlier, later in pairwise(reversed_at)), reversed_at
        assert history[-1][1][service] > scaled.rules(service)["minReplicas"]


@pytest.mark.parametrize("silent", [{RESOURCE, CUSTOM}, {CUSTOM}], ids=["all", "one"])
def test_missing_metrics_remove_no_pods(scaled: Scaled, silent: set[str]) -> None:
    expected = {name: scaled.rules(name)["maxReplicas"] - 1 for name in SERVICES}
    scaled.require(expected, of="in_flight")
    eventually(lambda: scaled.counts() == expected, within_s=5 * MINUTE_S)

    scaled.meter.silent = silent
    scaled.meter.loads = {}
    gap = scaled.record_counts(16)
    scaled.meter.silent = set()
    after = scaled.record_counts(14)

    assert all(counts == expected for _, counts in gap)
    assert all(after[-1][1][name] < expected[name] for name in SERVICES)
