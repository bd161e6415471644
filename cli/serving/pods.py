"""Judge pods by what Kubernetes reports about them; no I/O."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

CRASHES = 2
"""Crashes for a verdict; a single one may come from a node that was restarted."""

Pod = dict[str, Any]


def is_serving_pod(pod: Pod) -> bool:
    """Return whether a pod is meant to serve: it is not shutting down and has not ended."""
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return not ended and "deletionTimestamp" not in pod["metadata"]


def crashing_since(moment: datetime, pods: Sequence[Pod]) -> list[str]:
    """Return the names of the pods if all of them crash, and only since a given time; else none.

    That is evidence against a release of that time, because none of them can say what it serves.
    Every pod must be unready and have crashed again after that time. Some pod must be older than
    that, and each such pod must have been ready until then, or something else made it crash.
    """
    older = [pod for pod in pods if _time(pod["metadata"].get("creationTimestamp")) < moment]
    is_evident = (
        bool(older)
        and all(_crashed_after(moment, pod) for pod in pods)
        and all(_time(_ready(pod).get("lastTransitionTime")) > moment for pod in older)
    )
    return [pod["metadata"]["name"] for pod in pods] if is_evident else []


def _crashed_after(moment: datetime, pod: Pod) -> bool:
    if _ready(pod).get("status") != "False":
        return False
    for container in pod["status"].get("containerStatuses", []):
        for state in (container.get("state", {}), container.get("lastState", {})):
            ended = state.get("terminated") or {}
            failed = ended.get("exitCode", 0) != 0 and _time(ended.get("finishedAt")) > moment
            if failed and container.get("restartCount", 0) >= CRASHES:
                return True
    return False


def _ready(pod: Pod) -> dict[str, Any]:
    """Return a pod's condition `Ready`; empty if Kubernetes has not reported it."""
    conditions: list[dict[str, Any]] = pod.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == "Ready"), {})


def _time(text: str | None) -> datetime:
    """Return a time as Kubernetes writes it; the earliest one if it is absent."""
    return datetime.fromisoformat(text or "0001-01-01T00:00:00Z")
