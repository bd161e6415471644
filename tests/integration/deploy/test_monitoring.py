"""Alerts and the dashboard use metrics that exist, and the docs cover every alert."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.auth.tokens.service import login_counter
from services.billing.events.router import EventMetrics
from services.billing.watching import BooksWatch
from services.common.telemetry.metrics import Metrics
from services.inference.api.metrics import PredictMetrics
from services.inference.metering.journal.journal import Journal
from services.inference.metering.metrics import MeteringMetrics
from services.inference.models.metrics import ModelMetrics
from services.inference.monitoring.drift import DriftMonitor
from services.inference.monitoring.loop_lag import LoopLag
from services.inference.rollouts.metrics import RolloutMetrics
from tests.integration.deploy.chart import (
    CHART,
    GIVEN_KEYS,
    MEASURED,
    ROOT,
    SERVICES,
    Rendered,
    helm,
    objects_of,
    render,
)

WORDS = {"by", "sum", "rate", "max", "increase", "histogram_quantile", "le", "job", "pod", "status"}
WORDS |= {"model", "version", "column", "outcome", "namespace"}
WORDS |= {"absent", "or", "unless", "and", "time"}

KUBE_STATE_METRICS = {
    "kube_cronjob_status_last_schedule_time",
    "kube_cronjob_status_last_successful_time",
}


async def _nothing_differs() -> list[str]:
    return []


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return every sample that the services may expose, and the foreign ones that alerts use."""
    home = tmp_path_factory.mktemp("metrics")
    common = Metrics()
    registry: CollectorRegistry = common.registry
    login_counter(registry)
    EventMetrics(registry)
    journal = Journal(home / "journal", max_bytes=2**20)
    MeteringMetrics(registry, journal)
    PredictMetrics(common)
    ModelMetrics(registry)
    RolloutMetrics(registry)
    DriftMonitor(registry, rows_per_second=1)
    LoopLag(registry)
    BooksWatch(_nothing_differs, every_s=1, registry=registry)
    names = {"up", *KUBE_STATE_METRICS}
    for family in registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, [""])}
    return names


def metrics_in(expression: str) -> set[str]:
    """Return the metrics of a PromQL expression: the names left without strings and labels."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression)
    bare = re.sub(r"\{[^}]*\}|\bby \([^)]*\)", "", bare)
    return set(re.findall(r"[a-z_]{2,}", bare)) - WORDS


def test_alerts_use_metrics_that_exist(metrics: set[str]) -> None:
    rules = render(scenario="observability").get("PrometheusRule", "")["spec"]["groups"][0]["rules"]
    used = {name for rule in rules for name in metrics_in(rule["expr"])}

    assert used
    assert used <= metrics
    assert not [rule for rule in rules if "__" in rule["expr"]]


def test_the_dashboard_uses_metrics_that_exist(metrics: set[str]) -> None:
    text = render(scenario="observability").get("ConfigMap", "dashboard")["data"]["tollgate.json"]
    panels = json.loads(text)["panels"]
    used = {name for p in panels for t in p["targets"] for name in metrics_in(t["expr"])}

    assert len(used) > 8
    assert used <= metrics


def test_every_alert_has_a_section_in_the_docs() -> None:
    rules = render(scenario="observability").get("PrometheusRule", "")["spec"]["groups"][0]["rules"]
    pages = re.findall(r"^### (Tollgate\w+)$", (ROOT / "docs/operations.md").read_text(), re.M)

    assert [rule["alert"] for rule in rules] == pages


def test_a_missing_service_is_reported_by_name() -> None:
    rules = render(scenario="observability").get("PrometheusRule", "")["spec"]["groups"][0]["rules"]

    [expression] = [rule["expr"] for rule in rules if rule["alert"] == "TollgateGone"]
    for service in SERVICES:
        assert f'absent(up{{namespace="n", job="t-tollgate-{service}"}})' in expression


def test_the_journal_alert_fires_at_half_of_its_limit() -> None:
    rendered = render(
        "monitoring.prometheusRule.enabled=true", "inference.journal.maxBytes=2097152"
    )
    rules = rendered.get("PrometheusRule", "")["spec"]["groups"][0]["rules"]

    [rule] = [rule for rule in rules if rule["alert"] == "TollgateJournalFilling"]
    assert rule["expr"].endswith("> 1048576")


def test_the_service_monitor_scrapes_each_pod_once() -> None:
    rendered = render("monitoring.serviceMonitor.enabled=true", scenario="volume-journal")
    selector = rendered.get("ServiceMonitor", "")["spec"]["selector"]
    [component] = selector["matchExpressions"]
    scraped = [
        service["metadata"]["name"]
        for service in rendered.of("Service")
        if service["metadata"]["labels"]["app.kubernetes.io/component"] in component["values"]
    ]

    assert sorted(scraped) == [f"t-tollgate-{name}" for name in sorted(MEASURED)]


def test_google_collects_from_each_pod_if_the_cluster_supports_it() -> None:
    adapter = ("--set", f"metricsAdapter=stackdriver,{GIVEN_KEYS}")
    apis = ("--api-versions", "monitoring.googleapis.com/v1")
    objects = objects_of(helm("template", "t", str(CHART), *adapter, *apis).stdout)
    [collected] = [o for o in objects if o["kind"] == "PodMonitoring"]
    selector = collected["spec"]["selector"]
    [component] = selector["matchExpressions"]

    assert set(component["values"]) == set(MEASURED)
    for name in MEASURED:
        template = render().workload(name)["spec"]["template"]
        assert selector["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert "PodMonitoring" not in render("metricsAdapter=stackdriver").text


@pytest.mark.parametrize("service", SERVICES)
class TestTraces:
    def ports_to_anywhere(self, rendered: Rendered, service: str) -> list[int]:
        rules = rendered.get("NetworkPolicy", service)["spec"]["egress"]
        return [port["port"] for rule in rules if "to" not in rule for port in rule["ports"]]

    def test_without_a_collector_there_are_no_traces(self, service: str) -> None:
        rendered = render()

        assert not [name for name in rendered.settings(service) if name.startswith("OTEL_")]
        assert self.ports_to_anywhere(rendered, service) == []

    def test_traces_are_sampled_and_sent_as_configured(self, service: str) -> None:
        rendered = render(
            "tracing.endpoint=http://collector:4318",
            "tracing.sampler=traceidratio",
            "tracing.ratio=0.5",
        )
        settings = rendered.settings(service)

        assert {name: text for name, text in settings.items() if name.startswith("OTEL_")} == {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.5",
        }
        assert self.ports_to_anywhere(rendered, service) == [4318]


def test_schema_and_readme_match_the_values() -> None:
    checked = subprocess.run(
        [sys.executable, "scripts/chart_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert checked.returncode == 0, checked.stderr


def test_a_changed_default_makes_them_stale(tmp_path: Path) -> None:
    chart = tmp_path / CHART.relative_to(ROOT)
    chart.mkdir(parents=True)
    for name in ("values.yaml", "values.schema.json", "README.md"):
        (chart / name).write_text(
            (CHART / name).read_text().replace("minReplicas: 2", "minReplicas: 3")
        )

    checked = subprocess.run(
        [sys.executable, str(ROOT / "scripts/chart_docs.py"), "--check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert checked.returncode == 1
    assert "README.md is stale" in checked.stderr
