"""How long the chart gives a pod to start and to stop, and how much of that the tests wait."""

from dataclasses import dataclass

from tests.integration.deploy.chart import render

SCALE = 0.25
"""Waits that only let time pass are cut to a quarter: preStop, probes, minReadySeconds and the
delay of proxies. What a service needs to finish is not scaled."""

ENDPOINT_LAG_S = 1.0
"""Until every proxy of a cluster knows that a pod has come or is leaving."""


@dataclass(frozen=True)
class Timings:
    """Times of one service's pods, in seconds; all but `stop_s` are scaled."""

    pre_stop_s: float
    """From deletion until SIGTERM."""
    stop_s: float
    """From SIGTERM until SIGKILL: the grace period without the preStop sleep."""
    probe_s: float
    """Between two probes of `/readyz`."""
    failures: int
    """Failed probes in a row before the pod is removed."""
    min_ready_s: float
    """How long a new pod must be ready before an old one stops."""
    surge: int
    """Extra pods during an update, which never has fewer than the desired number."""


def chart_timings(service: str) -> Timings:
    """Return what `helm template` renders for a service with the chart's defaults."""
    spec = render().workload(service)["spec"]
    rolling, pod = spec["strategy"]["rollingUpdate"], spec["template"]["spec"]
    [container] = pod["containers"]
    assert rolling["maxUnavailable"] == 0
    probe = {"periodSeconds": 10, "failureThreshold": 3} | container["readinessProbe"]
    pre_stop_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    return Timings(
        pre_stop_s=pre_stop_s * SCALE,
        stop_s=pod["terminationGracePeriodSeconds"] - pre_stop_s,
        probe_s=probe["periodSeconds"] * SCALE,
        failures=probe["failureThreshold"],
        min_ready_s=spec["minReadySeconds"] * SCALE,
        surge=rolling["maxSurge"],
    )
