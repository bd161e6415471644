"""How long the chart gives a pod to come and to go, and how much of that is waited here."""

from dataclasses import dataclass

from tests.deploy.chart import render

SCALE = 0.25
"""Waits that only let time pass are cut to a quarter: preStop, probes, minReadySeconds and the lag
of the proxies. What a service needs to finish is its own, and is not."""

ENDPOINT_LAG_S = 1.0
"""Until every proxy of a cluster has heard that a pod leaves, or has come."""


@dataclass(frozen=True)
class Timings:
    """Of one service's pods, in seconds; all but `stop_s` are scaled."""

    pre_stop_s: float
    """From being told to go until SIGTERM."""
    stop_s: float
    """From SIGTERM until SIGKILL: the grace period without the preStop sleep."""
    probe_s: float
    """Between two looks at `/readyz`."""
    failures: int
    """Of the probe in a row, before the pod is taken out."""
    min_ready_s: float
    """A new pod is ready for so long before an old one is told to go."""
    surge: int
    """Pods beyond the wanted number during an update; none is missing meanwhile."""


def chart_timings(service: str) -> Timings:
    """What `helm template` says of a service, with the chart's own defaults."""
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
