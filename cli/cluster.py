"""What is asked of a Kubernetes cluster, by `kubectl`: a check run inside it, or its pods.

A check runs as a Job, made from the suspended CronJob `…-release-check` of the chart. The chart's
network policies let its pod through to inference, whoever else they keep out. Its outcome is read
from its log, through the API server and the kubelet. The API server's own way to a pod
(`…/proxy/…`) is not used for it: policies may deny that.
"""

import json
import subprocess
import time
from typing import Any

import typer

from cli.serving import ASK_TIMEOUT_S, Served, live_release

LOOK_S = 2.0
START_S = 180.0
"""How long a Job may take on top of its work: to be scheduled, to pull its image, to be seen."""
COMPONENT = "release-check"


class NotAsked(Exception):
    """The cluster could not be asked; the message says why in one clause."""


def run_check(
    arguments: list[str], *, helm_release: str, namespace: str, within_s: float
) -> dict[str, Any]:
    """Run a `tollgate` command in the cluster; the JSON document that it prints last.

    Args:
        arguments: of the command. Kubernetes replaces `$(NAME)` by variables of the pod.
        within_s: seconds that the command itself may take.

    Raises:
        NotAsked: it did not run to its end, or nobody could see what it printed.
    """
    job = _make_job(arguments, helm_release=helm_release, namespace=namespace)
    created = _kubectl_json("create", "-n", namespace, "-f", "-", "-o", "json", given=job)
    name = created["metadata"]["name"]
    try:
        _await_end(name, namespace=namespace, within_s=within_s + START_S)
        log = _kubectl("logs", "-n", namespace, f"job/{name}", "--tail=20")
    finally:
        _delete(name, namespace=namespace)
    return read_document(log)


def read_document(log: str) -> dict[str, Any]:
    """The last line of a log that is a JSON object.

    Raises:
        NotAsked: there is none.
    """
    for line in reversed(log.splitlines()):
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            return document
    raise NotAsked("the check printed no outcome")


def ask_pods(model: str, *, selector: str, namespace: str, port: int) -> Served:
    """What the ready pods of a selector serve, through the API server's proxy.

    Where network policies deny that way, no pod answers: use `run_check` there.

    Raises:
        NotAsked: the pods could not be listed.
    """
    listed = _kubectl_json("get", "pods", "-n", namespace, "-l", selector, "-o", "json")
    path = f"/api/v1/namespaces/{namespace}/pods/{{}}:{port}/proxy/metrics"
    served: dict[str, int | None] = {}
    for pod in listed["items"]:
        name = pod["metadata"]["name"]
        leaving = "deletionTimestamp" in pod["metadata"]
        if leaving or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        try:
            metrics = _kubectl("get", "--raw", path.format(name))
        except NotAsked:
            metrics = None
        served[name] = live_release(model, metrics)
    return served


def _make_job(arguments: list[str], *, helm_release: str, namespace: str) -> str:
    labels = f"app.kubernetes.io/instance={helm_release},app.kubernetes.io/component={COMPONENT}"
    found = _kubectl_json("get", "cronjobs", "-n", namespace, "-l", labels, "-o", "json")
    if len(found["items"]) != 1:
        raise NotAsked(f"Helm release '{helm_release}' has no CronJob '{COMPONENT}'")
    [cronjob] = found["items"]
    template = cronjob["spec"]["jobTemplate"]
    template["spec"]["template"]["spec"]["containers"][0]["args"] = arguments
    metadata = {"labels": template.get("metadata", {}).get("labels", {})}
    metadata["generateName"] = f"{cronjob['metadata']['name']}-"
    return json.dumps(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
    )


def _await_end(name: str, *, namespace: str, within_s: float) -> None:
    """Wait until a Job has succeeded or failed; one look that fails is not the end.

    Raises:
        NotAsked: it has done neither in time.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            job = _kubectl_json("get", "job", name, "-n", namespace, "-o", "json")
        except NotAsked as error:
            typer.echo(f"warning: {error}; trying again", err=True)
        else:
            status = job.get("status", {})
            if status.get("succeeded") or status.get("failed"):
                return
        time.sleep(LOOK_S)
    raise NotAsked(f"Job '{name}' did not end within {within_s:.0f} s")


def _delete(name: str, *, namespace: str) -> None:
    try:
        _kubectl("delete", "job", name, "-n", namespace, "--wait=false")
    except NotAsked as error:
        typer.echo(f"warning: Job '{name}' was not deleted: {error}", err=True)


def _kubectl_json(*arguments: str, given: str | None = None) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(_kubectl(*arguments, given=given))
    except ValueError as error:
        raise NotAsked(f"`kubectl {arguments[0]}` printed no JSON") from error
    return document


def _kubectl(*arguments: str, given: str | None = None) -> str:
    """What kubectl prints; its own words on stderr stay there.

    Raises:
        NotAsked: it failed, or is not there.
    """
    try:
        ran = subprocess.run(  # noqa: S603 — an argument list, no shell
            ["kubectl", f"--request-timeout={ASK_TIMEOUT_S:.0f}s", *arguments],  # noqa: S607
            input=given,
            stdout=subprocess.PIPE,
            text=True,
            timeout=2 * ASK_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAsked(f"kubectl: {type(error).__name__}") from error
    if ran.returncode != 0:
        raise NotAsked(f"`kubectl {arguments[0]}` failed")
    return ran.stdout
