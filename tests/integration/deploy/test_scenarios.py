"""Every scenario of `ci/` lints, is valid for Kubernetes, and follows good practice."""

import json
import os
import re
import subprocess
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from tests.integration.deploy.chart import (
    CHART,
    GIVEN_KEYS,
    ROOT,
    SCENARIOS,
    Manifest,
    helm,
    render,
)

KUBE_SCORE = ROOT / ".tools" / "bin" / "kube-score"
KUBERNETES = ("1.30", "1.37")
"""The oldest supported minor version and the newest known one."""

OTHERS_KINDS = {
    "Gateway": "of the Gateway API, whose schemas are not Kubernetes'",
    "HTTPRoute": "of the Gateway API",
    "Issuer": "of cert-manager",
    "PrometheusRule": "of the Prometheus Operator",
    "ServiceMonitor": "of the Prometheus Operator",
}
BY_DEFAULT = {
    "ConfigMap",
    "CronJob",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Job",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
}
SKIPPED_CHECKS = {
    "container-image-pull-policy": "tags do not move, and nodes that have them start sooner",
}
EXCUSED = {
    ("container-security-context-user-group-id", "mysql"): "999 is the user of the official image",
    ("deployment-has-host-podantiaffinity", "billing-verify"): "it has one pod",
    ("deployment-has-poddisruptionbudget", "billing-verify"): "it has one pod, which may pause",
    ("deployment-replicas", "billing-verify"): "one is enough to verify the books",
    (
        "pod-probes-identical",
        "billing-verify",
    ): "it answers as soon as it runs, so both probes ask the same",
    ("pod-networkpolicy", "everything-off"): "the scenario turns the policies off",
    ("deployment-replicas", "everything-off"): "the scenario has one replica of each",
    ("statefulset-has-host-podantiaffinity", "volume-journal"): "its model volume is on one node",
}
"""(check, part of the object's name, or the scenario) → reason for the exception."""


@cache
def validator(kind: str, api_version: str, version: str) -> Any:
    """Return a strict validator of a built-in kind; None if this Kubernetes does not have it."""
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    try:
        schema = schema_contents(f"{folder}/{kind.lower()}-{short}.json", version)
    except FileNotFoundError:
        return None
    return jsonschema.Draft202012Validator(schema, registry=definitions(version))


@cache
def definitions(version: str) -> Registry:
    name = f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json"
    return Resource.from_contents(schema_contents(name, version)) @ Registry()


def problems(manifest: Manifest, version: str) -> list[str]:
    found = validator(manifest["kind"], manifest["apiVersion"], version)
    if found is None:
        return [f"{manifest['kind']} {manifest['apiVersion']} is not known to {version}"]
    where = f"{manifest['kind']} {manifest['metadata']['name']}, {version}"
    return [f"{where}: {error.json_path}: {error.message}" for error in found.iter_errors(manifest)]


def test_the_chart_names_the_versions_it_is_tested_with() -> None:
    supported = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    oldest, newest = KUBERNETES

    assert supported == f">={oldest}.0-0"  # and no newest, which would block a cluster that is
    readme = " ".join((CHART / "README.md").read_text().split())
    assert f"Kubernetes {oldest} and newer, tested up to {newest}." in readme


def test_the_validator_is_strict() -> None:
    service = render().get("Service", "auth")
    misspelt = service | {"spec": service["spec"] | {"porst": []}}

    assert problems(service, "1.37") == []
    assert len(problems(misspelt, "1.37")) == 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, "1.37", strict=True)


@pytest.mark.costly
def test_the_defaults_use_built_in_kinds_only() -> None:
    assert {o["kind"] for o in render(own_keys=True).objects} == BY_DEFAULT


@pytest.mark.parametrize("scenario", SCENARIOS)
class TestScenario:
    def test_lints(self, scenario: str) -> None:
        values = CHART / "ci" / f"{scenario}-values.yaml"

        linted = helm("lint", "--strict", "--values", str(values), "--set", GIVEN_KEYS, str(CHART))

        assert linted.returncode == 0, linted.stdout

    def test_is_valid_on_the_oldest_and_the_newest_kubernetes(self, scenario: str) -> None:
        found = [
            problem
            for manifest in render(scenario=scenario).objects
            for version in KUBERNETES
            if manifest["kind"] not in OTHERS_KINDS
            for problem in problems(manifest, version)
        ]

        assert found == []

    def test_follows_good_practice(self, scenario: str) -> None:
        if not KUBE_SCORE.exists() and os.environ.get("CI") != "true":
            pytest.skip("KUBE-SCORE IS MISSING: scripts/go-tools.sh builds it")
        ignored = [f"--ignore-test={check}" for check in SKIPPED_CHECKS]
        scored = subprocess.run(
            [str(KUBE_SCORE), "score", "-", "--output-format=json", *ignored],
            input=render(scenario=scenario).text,
            capture_output=True,
            text=True,
            timeout=60,
        )
        failed = [
            (check["check"]["id"], result["object_name"], check["comments"])
            for result in json.loads(scored.stdout)
            for check in result["checks"]
            if not check["skipped"] and check["grade"] < 7
        ]

        assert [
            each
            for each in failed
            if not any(
                each[0] == check and (part in each[1] or part == scenario)
                for check, part in EXCUSED
            )
        ] == []

    def test_every_pod_is_restricted(self, scenario: str) -> None:
        for name, pod in render(scenario=scenario).pods():
            assert pod["automountServiceAccountToken"] is False, name
            assert pod["enableServiceLinks"] is False, name
            assert pod["securityContext"]["runAsNonRoot"] is True, name
            assert pod["securityContext"]["runAsUser"] in (10001, 999), name
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
            for container in pod["containers"] + pod.get("initContainers", []):
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }, name
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name

    def test_everything_mounted_exists(self, scenario: str) -> None:
        rendered = render(scenario=scenario)
        created = {(o["kind"], o["metadata"]["name"]) for o in rendered.objects}
        others = {"given", "model-keys", "database-ca"}  # which the scenarios declare as existing
        for name, pod in rendered.pods():
            for volume in pod.get("volumes", []):
                mounted = {
                    ("Secret", volume.get("secret", {}).get("secretName")),
                    ("ConfigMap", volume.get("configMap", {}).get("name")),
                    (
                        "PersistentVolumeClaim",
                        volume.get("persistentVolumeClaim", {}).get("claimName"),
                    ),
                }
                assert all(
                    each in created or each[1] in others for each in mounted if each[1] is not None
                ), (name, volume)

    def test_secret_values_are_only_in_secrets(self, scenario: str) -> None:
        rendered = render(scenario=scenario)
        values = {
            value
            for secret in rendered.of("Secret")
            for key, value in secret["stringData"].items()
            if key != "trusted.pem"
        }
        elsewhere = json.dumps([o for o in rendered.objects if o["kind"] != "Secret"])

        assert not [value for value in values if json.dumps(value)[1:-1] in elsewhere]
