"""Run checks in a Kubernetes cluster, or query its pods, with `kubectl`.

A check runs as a Job created from the chart's suspended CronJob `…-release-check`, whose pod the
network policies always allow to reach inference. Its outcome is read from its log. The API
server's proxy (`…/proxy/…`) is no alternative: network policies may block it.
"""

import json
import secrets
import subprocess
import time
from datetime import datetime
from typing import Any

from cli.output import warn
from cli.serving.pods import crashing_since, is_serving_pod
from cli.serving.processes import REQUEST_TIMEOUT_S, Served, live_release

POLL_S = 2.0
TRIES = 5
"""How often a command that may be repeated is tried, with a pause of `POLL_S` in between."""
START_S = 180.0
"""Extra time for a Job to be scheduled, to pull its image, and to be observed."""
COMPONENT = "release-check"


class ClusterError(Exception):
    """The cluster could not be queried; the message is a clause that says why."""


def run_check(
    arguments: list[str], *, helm_release: str, namespace: str, within_s: float
) -> dict[str, Any]:
    """Run a `tollgate` command in the cluster; return the last JSON document that it prints.

    Args:
        arguments: of the command. Kubernetes expands `$(NAME)` from the pod's environment.
        within_s: seconds that the command itself may take.

    Raises:
        ClusterError: the command did not finish, or its output could not be read.
    """
    job = _make_job(arguments, helm_release=helm_release, namespace=namespace)
    name = job["metadata"]["name"]
    try:
        # With a name of our own, a repetition after a lost response starts no second Job.
        _kubectl("apply", "-n", namespace, "-f", "-", given=json.dumps(job))
        _await_end(name, namespace=namespace, within_s=within_s + START_S)
        log = _kubectl("logs", "-n", namespace, f"job/{name}", "--tail=20")
    finally:
        _delete(name, namespace=namespace)
    return read_document(log)


def read_document(log: str) -> dict[str, Any]:
    """Return the last line of a log that is a JSON object.

    Raises:
        ClusterError: the log has no such line.
    """
    for line in reversed(log.splitlines()):
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            return document
    raise ClusterError("the check printed no outcome")


def ask_pods(model: str, *, selector: str, namespace: str, port: int) -> Served:
    """Return the releases that a selector's pods serve, through the API server's proxy.

    If network policies block the proxy, no pod responds; use `run_check` instead.

    Raises:
        ClusterError: the pods could not be listed.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{{}}:{port}/proxy/metrics"
    served: dict[str, int | None] = {}
    for pod in _list_pods(selector, namespace):
        name = pod["metadata"]["name"]
        try:
            metrics = _kubectl("get", "--raw", path.format(name), tries=1)
        except ClusterError:
            metrics = None
        served[name] = live_release(model, metrics)
    return served


def find_crashing(*, selector: str, namespace: str, since: datetime) -> list[str]:
    """Return a selector's pods if all of them crash, and only since a given time; else none.

    Raises:
        ClusterError: the pods could not be listed.
    """
    return crashing_since(since, _list_pods(selector, namespace))


def select_inference(helm_release: str) -> str:
    """Return the label selector of a Helm release's inference pods."""
    return _select(helm_release, "inference")


def _select(helm_release: str, component: str) -> str:
    return f"app.kubernetes.io/instance={helm_release},app.kubernetes.io/component={component}"


def _list_pods(selector: str, namespace: str) -> list[dict[str, Any]]:
    listed = _kubectl_json("get", "pods", "-n", namespace, "-l", selector, "-o", "json")
    return [pod for pod in listed["items"] if is_serving_pod(pod)]


def _make_job(arguments: list[str], *, helm_release: str, namespace: str) -> dict[str, Any]:
    labels = _select(helm_release, COMPONENT)
    found = _kubectl_json("get", "cronjobs", "-n", namespace, "-l", labels, "-o", "json")
    if len(found["items"]) != 1:
        raise ClusterError(f"Helm release '{helm_release}' has no CronJob '{COMPONENT}'")
    [cronjob] = found["items"]
    template = cronjob["spec"]["jobTemplate"]
    template["spec"]["template"]["spec"]["containers"][0]["args"] = arguments
    metadata = {"labels": template.get("metadata", {}).get("labels", {})}
    metadata["name"] = f"{cronjob['metadata']['name']}-{secrets.token_hex(4)}"
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}


def _await_end(name: str, *, namespace: str, within_s: float) -> None:
    """Wait until a Job has succeeded or failed; a failed query is retried until then.

    Raises:
        ClusterError: the Job did not finish in time.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            job = _kubectl_json("get", "job", name, "-n", namespace, "-o", "json", tries=1)
        except ClusterError as error:
            warn(f"{error}; retrying")
        else:
            status = job.get("status", {})
            if status.get("succeeded") or status.get("failed"):
                return
        time.sleep(POLL_S)
    raise ClusterError(f"Job '{name}' did not finish within {within_s:.0f} s")


def _delete(name: str, *, namespace: str) -> None:
    try:
        _kubectl(
            "delete", "job", name, "-n", namespace, "--wait=false", "--ignore-not-found", tries=1
        )
    except ClusterError as error:
        warn(f"Job '{name}' was not deleted: {error}")


def _kubectl_json(*arguments: str, tries: int = TRIES) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(_kubectl(*arguments, tries=tries))
    except ValueError as error:
        raise ClusterError(f"`kubectl {arguments[0]}` did not print JSON") from error
    return document


def _kubectl(*arguments: str, given: str | None = None, tries: int = TRIES) -> str:
    """Run kubectl and return its stdout; its stderr is passed through.

    Args:
        given: text for its stdin.
        tries: how often to run it until it succeeds.

    Raises:
        ClusterError: kubectl failed each time, or is not installed.
    """
    for left in reversed(range(tries)):
        try:
            ran = subprocess.run(  # noqa: S603 — an argument list, no shell
                ["kubectl", f"--request-timeout={REQUEST_TIMEOUT_S:.0f}s", *arguments],  # noqa: S607
                input=given,
                stdout=subprocess.PIPE,
                text=True,
                timeout=2 * REQUEST_TIMEOUT_S,
            )
        except OSError as error:
            raise ClusterError(f"kubectl: {type(error).__name__}") from error
        except subprocess.TimeoutExpired:
            failure = f"`kubectl {arguments[0]}` did not finish"
        else:
            if ran.returncode == 0:
                return ran.stdout
            failure = f"`kubectl {arguments[0]}` failed"
        if left:
            warn(f"{failure}; retrying")
            time.sleep(POLL_S)
    raise ClusterError(failure)
