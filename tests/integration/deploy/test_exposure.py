"""What the chart's exposure and policies have in common with other files and objects."""

import re

from tests.integration.deploy.chart import ROOT, SERVICES, render


def test_the_proxy_of_compose_exposes_the_same_paths_as_the_ingress() -> None:
    caddyfile = (ROOT / "deploy" / "compose" / "Caddyfile").read_text()
    rules = render("domain=tollgate.example.com").get("Ingress", "")["spec"]["rules"]

    for service, rule in zip(SERVICES, rules, strict=True):
        [matcher] = re.findall(rf"^\timport service {service}:\d+ (.*)$", caddyfile, re.MULTILINE)
        paths = {path["path"] for path in rule["http"]["paths"]} - {"/docs", "/openapi.json"}
        assert set(matcher.split()) == {"/" if path == "/" else f"{path}*" for path in paths}
    assert "@inside not path {args[1:]} /docs* /openapi.json\n\trespond @inside 404" in caddyfile


def test_every_pod_has_its_own_policy() -> None:
    for scenario in ("defaults", "volume-journal", "external-database"):
        rendered = render(scenario=scenario)
        covered = {
            o["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
            for o in rendered.of("NetworkPolicy")
        }
        made = {
            o["metadata"]["labels"]["app.kubernetes.io/component"]
            for o in rendered.objects
            if o["kind"] in ("Deployment", "StatefulSet", "Job", "CronJob", "Pod")
        }

        assert made <= covered, scenario
