"""A release of the chart on a cluster, in a namespace that admits restricted pods only."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.waiting import eventually
from tests.e2e.cluster.control_plane import Cluster
from tests.integration.deploy.chart import CHART, HELM, Manifest, objects_of

NAME = "t"
_DEADLINE_S = 180

WORKLOADS = ("Deployment", "StatefulSet")
MADE = (
    ("v1", "ConfigMap"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Pod"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("cert-manager.io/v1", "Issuer"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
)
"""Every kind that the chart may create."""


class Release:
    """The release `t` in a namespace; an upgrade may change its scenario."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.api = cluster.api
        self.namespace = namespace
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(cluster.folder),
            "KUBECONFIG": str(cluster.kubeconfig),
        }

    def install(self, scenario: str, *settings: str) -> None:
        """Run `helm install` and wait until everything is ready."""
        self._apply("install", scenario, *settings)

    def upgrade(self, scenario: str, *settings: str, flags: tuple[str, ...] = ()) -> None:
        """Run `helm upgrade` and wait until everything is ready."""
        self._apply("upgrade", scenario, *settings, flags=flags)

    def rollback(self, revision: int) -> None:
        self.helm("rollback", NAME, str(revision), "--wait", "--wait-for-jobs")

    def uninstall(self) -> None:
        self.helm("uninstall", NAME, "--wait")

    def revision(self) -> int:
        """Return the number of the deployed revision."""
        [*_, last] = json.loads(self.helm("history", NAME, "--output", "json"))
        assert last["status"] == "deployed", last
        return int(last["revision"])

    def manifests(self) -> tuple[Manifest, ...]:
        """Return the objects that helm reports, hooks included."""
        texts = (self.helm("get", "manifest", NAME), self.helm("get", "hooks", NAME))
        return objects_of("\n---\n".join(texts))

    def helm(self, *arguments: str) -> str:
        """Run helm in the namespace; return its output.

        Raises:
            AssertionError: it failed; the message is helm's.
        """
        result = subprocess.run(
            [str(HELM), "--namespace", self.namespace, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
        )
        assert result.returncode == 0, f"{arguments}: {result.stdout}{result.stderr}"
        return result.stdout

    def get(self, api_version: str, kind: str, name: str) -> Manifest:
        """Return the object `t-tollgate-<name>`."""
        return self._get(api_version, kind, f"{NAME}-tollgate-{name}")

    def find(self, api_version: str, kind: str) -> list[Manifest]:
        """Return the objects of a kind with the release's label."""
        label = f"app.kubernetes.io/instance={NAME}"
        return self.api.find(api_version, kind, namespace=self.namespace, labels=label)

    def await_ready(self, kind: str, name: str, count: int) -> None:
        """Wait until a workload has this many pods, all of them ready."""

        def ready() -> bool:
            workload = self._get("apps/v1", kind, name)
            return bool(
                workload["spec"]["replicas"] == workload["status"].get("readyReplicas") == count
            )

        eventually(ready)

    def await_addresses(self, service: str) -> None:
        """Wait until a Service leads to a ready pod, at a port that the pod has."""
        label = f"kubernetes.io/service-name={service}"
        where = {"namespace": self.namespace, "labels": label}

        def reachable() -> bool:
            return any(
                endpoint["conditions"]["ready"] and each["ports"]
                for each in self.api.find("discovery.k8s.io/v1", "EndpointSlice", **where)
                for endpoint in each["endpoints"] or []
            )

        eventually(reachable)

    def await_disruptions_allowed(self, budget: str, count: int) -> None:
        """Wait until a PodDisruptionBudget has found its pods and allows this many disruptions."""

        def allowed() -> bool:
            status = self._get("policy/v1", "PodDisruptionBudget", budget)["status"]
            return bool(status["expectedPods"] and status["disruptionsAllowed"] == count)

        eventually(allowed)

    def run_now(self, template: Manifest) -> None:
        """Create a Job from a CronJob, like `kubectl create job --from`; wait for its success."""
        name = f"{template['metadata']['name']}-now"
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
        spec = template["spec"]["jobTemplate"]["spec"]
        self.api.create(job | {"spec": spec}, namespace=self.namespace)
        eventually(lambda: self._get("batch/v1", "Job", name)["status"].get("succeeded"))
        self.api.delete("batch/v1", "Job", name, namespace=self.namespace)

    def secrets(self) -> dict[str, Any]:
        """Return the data of every Secret of the release, by name."""
        return {each["metadata"]["name"]: each["data"] for each in self.find("v1", "Secret")}

    def remaining_objects(self) -> set[tuple[str, str]]:
        """Return kind and name of every existing object of the release."""
        return {
            (kind, each["metadata"]["name"])
            for api_version, kind in MADE
            for each in self.find(api_version, kind)
        }

    def pods(self) -> list[Manifest]:
        """Return the serving pods: those of workloads, not of Jobs, and not terminating."""
        return [
            pod
            for pod in self.find("v1", "Pod")
            if pod["metadata"]["ownerReferences"][0]["kind"] != "Job"
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def _get(self, api_version: str, kind: str, name: str) -> Manifest:
        return self.api.get(api_version, kind, name, namespace=self.namespace)

    def _apply(self, verb: str, scenario: str, *settings: str, flags: tuple[str, ...] = ()) -> None:
        values = str(CHART / "ci" / f"{scenario}-values.yaml")
        set_flags = [part for setting in settings for part in ("--set", setting)]
        waiting = ("--wait", "--wait-for-jobs", f"--timeout={_DEADLINE_S - 10}s")
        self.helm(verb, NAME, str(CHART), "--values", values, *set_flags, *waiting, *flags)


@contextmanager
def new_release(
    cluster: Cluster, namespace: str, scenario: str, *settings: str
) -> Iterator[Release]:
    """Install a scenario; it is ready inside the block, and its namespace is deleted after it."""
    labels = {f"pod-security.kubernetes.io/{each}": "restricted" for each in ("enforce", "warn")}
    metadata = {"name": namespace, "labels": labels}
    cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    accounts = {"namespace": namespace, "name": "default"}
    eventually(lambda: cluster.api.exists("v1", "ServiceAccount", **accounts))
    try:
        release = Release(cluster, namespace)
        release.install(scenario, *settings)
        yield release
    finally:
        cluster.api.delete("v1", "Namespace", namespace)
