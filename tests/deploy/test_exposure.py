"""How callers reach the services, and which pods may talk to each other."""

import re
from typing import Any

import pytest

from tests.deploy.chart import ROOT, SERVICES, Rendered, render

HOSTS = [f"{service}.tollgate.example.com" for service in SERVICES]


class TestExposure:
    def test_by_default_nothing_is_exposed(self) -> None:
        rendered = render()

        assert rendered.of("Ingress") == []
        assert rendered.settings("auth")["AUTH_ISSUER"] == "http://t-tollgate-auth.n.svc"

    def test_a_domain_is_enough_for_https(self) -> None:
        rendered = render("domain=tollgate.example.com")
        ingress = rendered.get("Ingress", "")
        [tls] = ingress["spec"]["tls"]
        [issuer] = rendered.of("Issuer")

        assert tls["hosts"] == HOSTS == [rule["host"] for rule in ingress["spec"]["rules"]]
        annotations = ingress["metadata"]["annotations"]
        assert annotations == {"cert-manager.io/issuer": issuer["metadata"]["name"]}
        assert rendered.settings("auth")["AUTH_ISSUER"] == f"https://{HOSTS[0]}"

    def test_services_trust_the_public_issuer_and_reach_it_in_the_cluster(self) -> None:
        rendered = render("domain=tollgate.example.com")

        for service in ("inference", "billing"):
            settings, prefix = rendered.settings(service), service.upper()
            assert settings[f"{prefix}_AUTH_URL"] == rendered.settings("auth")["AUTH_ISSUER"]
            assert settings[f"{prefix}_AUTH_ADDRESS"] == "http://t-tollgate-auth.n.svc"

    def test_without_a_domain_an_ingress_is_plain_http_and_shared_by_path(self) -> None:
        spec = render("expose=ingress").get("Ingress", "")["spec"]
        paths = [path["path"] for rule in spec["rules"] for path in rule["http"]["paths"]]

        assert "tls" not in spec
        assert not [rule for rule in spec["rules"] if "host" in rule]
        assert len(paths) == len(set(paths))

    def test_internal_paths_are_not_exposed(self) -> None:
        spec = render("domain=tollgate.example.com").get("Ingress", "")["spec"]
        paths = {path["path"] for rule in spec["rules"] for path in rule["http"]["paths"]}

        assert not paths & {"/", "/metrics", "/events", "/leases"}
        assert {"/register", "/token", "/.well-known", "/v1", "/v2", "/usage", "/docs"} <= paths

    def test_the_proxy_of_compose_exposes_the_same_paths_as_the_ingress(self) -> None:
        caddyfile = (ROOT / "deploy" / "compose" / "Caddyfile").read_text()
        rules = render("domain=tollgate.example.com").get("Ingress", "")["spec"]["rules"]

        for service, rule in zip(SERVICES, rules, strict=True):
            [listed] = re.findall(
                rf"^\timport service {service}:\d+ (.*)$", caddyfile, re.MULTILINE
            )
            paths = {path["path"] for path in rule["http"]["paths"]} - {"/docs", "/openapi.json"}
            assert set(listed.split()) == {f"{path}*" for path in paths}
        assert (
            "@inside not path {args[1:]} /docs* /openapi.json\n\trespond @inside 404" in caddyfile
        )

    def test_a_certificate_or_a_cluster_issuer_of_ones_own_is_used(self) -> None:
        own = render("domain=tollgate.example.com", "tls.secretName=mine")
        issued = render("domain=tollgate.example.com", "tls.clusterIssuer=all")

        assert own.of("Issuer") == issued.of("Issuer") == []
        assert own.get("Ingress", "")["spec"]["tls"][0]["secretName"] == "mine"
        assert issued.get("Ingress", "")["metadata"]["annotations"] == {
            "cert-manager.io/cluster-issuer": "all"
        }

    @pytest.mark.parametrize("kind", ["issuer", "cluster-issuer"])
    def test_an_issuer_named_by_the_annotations_is_the_only_one(self, kind: str) -> None:
        annotation = f"ingress.annotations.cert-manager\\.io/{kind}=mine"
        rendered = render("domain=tollgate.example.com", annotation)

        assert rendered.of("Issuer") == []
        assert rendered.get("Ingress", "")["metadata"]["annotations"] == {
            f"cert-manager.io/{kind}": "mine"
        }

    @pytest.mark.parametrize(
        ("declined", "scheme"), [((), "https"), (("tls.enabled=false",), "http")]
    )
    def test_behind_another_proxy_nothing_is_created_but_the_issuer_is_its_address(
        self, declined: tuple[str, ...], scheme: str
    ) -> None:
        rendered = render("domain=tollgate.example.com", "expose=none", *declined)

        assert rendered.of("Ingress") == rendered.of("Issuer") == []
        assert rendered.settings("auth")["AUTH_ISSUER"] == f"{scheme}://{HOSTS[0]}"

    def test_https_can_be_turned_off(self) -> None:
        rendered = render("domain=tollgate.example.com", "tls.enabled=false")

        assert "tls" not in rendered.get("Ingress", "")["spec"]
        assert rendered.settings("auth")["AUTH_ISSUER"] == f"http://{HOSTS[0]}"

    def test_a_gateway_has_a_listener_and_a_route_for_each_service(self) -> None:
        rendered = render(scenario="gateway")
        listeners = rendered.get("Gateway", "")["spec"]["listeners"]
        routes = rendered.of("HTTPRoute")

        assert [each.get("hostname") for each in listeners] == [None, *HOSTS]
        assert [route["spec"]["hostnames"] for route in routes] == [[host] for host in HOSTS]
        [issuer] = rendered.of("Issuer")
        [solver] = issuer["spec"]["acme"]["solvers"]
        assert "gatewayHTTPRoute" in solver["http01"]

    def test_health_checks_for_googles_load_balancer_can_be_created(self) -> None:
        checks = render("gateway.gkeHealthChecks=true", scenario="gateway").of("HealthCheckPolicy")

        assert [each["spec"]["targetRef"]["name"] for each in checks] == [
            f"t-tollgate-{service}" for service in SERVICES
        ]
        for each in checks:
            check = each["spec"]["default"]["config"]["httpHealthCheck"]
            assert check["requestPath"] == "/readyz"
        assert render(scenario="gateway").of("HealthCheckPolicy") == []

    def test_routes_can_join_an_existing_gateway(self) -> None:
        rendered = render(
            "domain=tollgate.example.com",
            "expose=gateway",
            "gateway.name=edge",
            "gateway.namespace=net",
        )

        assert rendered.of("Gateway") == rendered.of("Issuer") == []
        for route in rendered.of("HTTPRoute"):
            assert route["spec"]["parentRefs"] == [{"name": "edge", "namespace": "net"}]


def policy(rendered: Rendered, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = rendered.get("NetworkPolicy", name)["spec"]
    return spec


def targets(spec: dict[str, Any]) -> set[str]:
    """Return the components, or addresses, that a policy lets its pods call."""
    return {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        if "podSelector" in peer
        else peer["ipBlock"]["cidr"]
        for rule in spec.get("egress", [])
        for peer in rule["to"]
    }


def callers(spec: dict[str, Any]) -> set[str]:
    return {
        component
        for rule in spec.get("ingress", [])
        for peer in rule.get("from", [])
        for component in peer["podSelector"]["matchExpressions"][0]["values"]
    }


class TestNetwork:
    def test_everything_is_denied_except_dns_and_what_each_pod_needs(self) -> None:
        rendered = render()

        assert "ingress" not in policy(rendered, "default-deny")
        assert "egress" not in policy(rendered, "default-deny")
        assert targets(policy(rendered, "auth")) == {"mysql"}
        assert targets(policy(rendered, "billing")) == {"auth", "mysql"}
        assert targets(policy(rendered, "inference")) == {"auth", "billing"}
        assert callers(policy(rendered, "mysql")) == {"auth", "billing", "migrate", "mysql-backup"}
        assert callers(policy(rendered, "billing")) == {"inference", "test"}
        assert targets(policy(rendered, "mysql")) == set()

    def test_every_pod_has_its_own_policy(self) -> None:
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

    def test_a_bucket_and_an_external_database_can_be_reached(self) -> None:
        bucket = targets(policy(render(scenario="gcs"), "inference"))
        database = targets(policy(render(scenario="external-database"), "auth"))

        assert bucket == {
            "auth",
            "billing",
            "0.0.0.0/0",
            "169.254.169.252/32",
            "169.254.169.254/32",
        }
        assert database == {"10.20.0.3/32"}

    def test_a_database_in_the_cluster_is_matched_by_its_pods(self) -> None:
        peer = "externalDatabase.to[0].podSelector.matchLabels.app"
        rendered = render(f"{peer}=router", scenario="external-database")
        expected = [
            {"ipBlock": {"cidr": "10.20.0.3/32"}},
            {"podSelector": {"matchLabels": {"app": "router"}}},
        ]

        for name in ("auth", "billing", "migrate-hook"):
            assert expected in [rule.get("to") for rule in policy(rendered, name)["egress"]]

    def test_feedback_in_a_bucket_opens_egress_for_inference_only(self) -> None:
        rendered = render("inference.feedback.storeUrl=gs://b/f", "sampleModel.enabled=true")

        assert "169.254.169.254/32" in targets(policy(rendered, "inference"))
        assert targets(policy(rendered, "sample-model")) == set()

    def test_metrics_collectors_are_admitted_besides_the_listed_peers(self) -> None:
        named = "networkPolicy.allowFrom[0].ipBlock.cidr=10.0.0.0/8"
        collectors: dict[str, Any] = {"namespaceSelector": {}}
        peers = {
            settings: policy(render(*settings), "billing")["ingress"][1]["from"]
            for settings in (
                ("monitoring.serviceMonitor.enabled=true",),
                ("metricsAdapter=stackdriver",),
                ("monitoring.serviceMonitor.enabled=true", named),
            )
        }

        assert all(collectors in each for each in peers.values())
        assert {"ipBlock": {"cidr": "10.0.0.0/8"}} in list(peers.values())[-1]

    def test_once_exposed_anyone_may_call_or_only_the_listed_peers(self) -> None:
        anybody = policy(render("expose=ingress"), "auth")["ingress"]
        named = policy(
            render("expose=ingress", "networkPolicy.allowFrom[0].ipBlock.cidr=10.0.0.0/8"), "auth"
        )["ingress"]

        assert {"ports": [{"port": "http"}]} in anybody
        assert {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "http"}]} in named
        assert {"ports": [{"port": "http"}]} not in named

    def test_policies_can_be_turned_off(self) -> None:
        assert render("networkPolicy.enabled=false").of("NetworkPolicy") == []
