"""Render the chart with `helm template` for the tests."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "tollgate"
HELM = Path(sys.executable).with_name("helm")
SERVICES = ("auth", "inference", "billing", "console")
MEASURED = (*SERVICES, "billing-verify")
"""The components with metrics."""
SCENARIOS = sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*.yaml"))

GIVEN_KEYS = "auth.signingKeysSecret=given"
"""Helm needs ten times as long to make an RSA key as for everything else."""

Manifest = dict[str, Any]


class Refused(Exception):
    """The chart does not render; the text is helm's message."""


@dataclass(frozen=True)
class Rendered:
    """All objects of one rendering."""

    text: str
    objects: tuple[Manifest, ...]

    def get(self, kind: str, name: str) -> Manifest:
        """Return the one object of this kind whose name is `t-tollgate-<name>`."""
        full = f"t-tollgate-{name}".removesuffix("-")
        [match] = [o for o in self.of(kind) if o["metadata"]["name"] == full]
        return match

    def job(self, name: str) -> Manifest:
        """Return the Job of the first revision whose name is this one and a hash of its content."""
        [match] = [
            o for o in self.of("Job") if o["metadata"]["name"].startswith(f"t-tollgate-{name}-1-")
        ]
        return match

    def of(self, kind: str) -> list[Manifest]:
        return [o for o in self.objects if o["kind"] == kind]

    def pods(self) -> Iterator[tuple[str, Manifest]]:
        """Yield the name and spec of every pod that the objects create."""
        for o in self.objects:
            spec = o.get("spec", {})
            if o["kind"] == "CronJob":
                spec = spec["jobTemplate"]["spec"]
            if o["kind"] == "Pod":
                yield o["metadata"]["name"], spec
            elif "template" in spec:
                yield o["metadata"]["name"], spec["template"]["spec"]

    def workload(self, service: str) -> Manifest:
        """Return the Deployment or StatefulSet of a service."""
        [match] = [
            o
            for o in self.objects
            if o["kind"] in ("Deployment", "StatefulSet")
            and o["metadata"]["name"] == f"t-tollgate-{service}"
        ]
        return match

    def container(self, service: str) -> Manifest:
        containers: list[Manifest] = self.workload(service)["spec"]["template"]["spec"][
            "containers"
        ]
        [container] = containers
        return container

    def settings(self, service: str) -> dict[str, str]:
        """Return the environment variables that a service gets from its ConfigMap."""
        data: dict[str, str] = self.get("ConfigMap", service)["data"]
        return data


def render(
    *settings: str,
    scenario: str | None = None,
    own_keys: bool = False,
    name: str = "t",
    chart: Path = CHART,
) -> Rendered:
    """Return the objects of release `t` in namespace `n`.

    Args:
        settings: `key=value`, as for `--set`.
        scenario: one of `SCENARIOS`.
        own_keys: have the chart create auth's signing keys, as it does by default.
        name: the release's name.
        chart: the chart's folder.

    Raises:
        Refused: helm reports an error.
    """
    return _render(settings if own_keys else (GIVEN_KEYS, *settings), scenario, name, chart)


@cache
def _render(settings: tuple[str, ...], scenario: str | None, name: str, chart: Path) -> Rendered:
    command = [str(HELM), "template", name, str(chart), "--namespace", "n"]
    if scenario:
        command += ["--values", str(CHART / "ci" / f"{scenario}-values.yaml")]
    for setting in settings:
        command += ["--set", setting]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=_environment()
    )
    if result.returncode:
        raise Refused(result.stderr)
    return Rendered(result.stdout, objects_of(result.stdout))


def objects_of(text: str) -> tuple[Manifest, ...]:
    """Return the objects of a stream of YAML documents."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(o for o in yaml.load_all(text, Loader=loader) if o)  # is safe


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm on the chart."""
    return subprocess.run(
        [str(HELM), *arguments], capture_output=True, text=True, timeout=120, env=_environment()
    )


def same(one: Any, other: Any) -> bool:
    """Compare two pieces of YAML."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _environment() -> dict[str, str]:
    """Hide any cluster that this machine is configured for."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
