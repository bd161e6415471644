"""The Job that checks from inside the cluster what pods serve, with every values file."""

from typing import Any

import pytest

from tests.deploy.chart import SCENARIOS, Manifest, Rendered, render

CHECK = "release-check"
WITH_MODELS = [name for name in SCENARIOS if name in ("gcs", "volume-journal")]
RESTRICTED = (
    "networkPolicy.allowFrom[0].namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name=web"
)


def labels_of(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "tollgate",
        "app.kubernetes.io/instance": "t",
        "app.kubernetes.io/component": component,
    }


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Return whether a label selector, of the two kinds in the chart, selects a pod."""
    return all(
        labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()
    ) and all(
        each["operator"] == "In" and labels.get(each["key"]) in each["values"]
        for each in selector.get("matchExpressions", [])
    )


def allows(rules: list[Manifest], side: str, labels: dict[str, str], port: str) -> bool:
    """Return whether a rule admits a pod of the same namespace on a named port."""
    return any(
        any(entry.get("port") == port for entry in rule.get("ports", [{"port": port}]))
        and (
            side not in rule
            or any(
                "namespaceSelector" not in peer and selects(peer.get("podSelector", {}), labels)
                for peer in rule[side]
                if "ipBlock" not in peer
            )
        )
        for rule in rules
    )


def may_call(rendered: Rendered, caller: str, called: str) -> bool:
    """Return whether the network policies let one component's pods call another's."""
    policies = [policy["spec"] for policy in rendered.of("NetworkPolicy")]
    if not policies:
        return True

    def rules(component: str, direction: str) -> list[Any]:
        return [
            rule
            for policy in policies
            if selects(policy["podSelector"], labels_of(component))
            for rule in policy.get(direction, [])
        ]

    return allows(rules(caller, "egress"), "to", labels_of(called), "http") and allows(
        rules(called, "ingress"), "from", labels_of(caller), "http"
    )


def container_of(rendered: Rendered) -> Manifest:
    template = rendered.get("CronJob", CHECK)["spec"]["jobTemplate"]["spec"]["template"]
    assert template["metadata"]["labels"] == labels_of(CHECK)
    [container] = template["spec"]["containers"]
    found: Manifest = container
    return found


@pytest.mark.parametrize("scenario", WITH_MODELS)
@pytest.mark.parametrize("settings", [(), ("domain=",), (RESTRICTED,)])
def test_the_policies_let_it_reach_inference_and_auth(
    scenario: str, settings: tuple[str, ...]
) -> None:
    rendered = render(*settings, scenario=scenario)

    assert may_call(rendered, CHECK, "inference")
    assert may_call(rendered, CHECK, "auth")
    assert not may_call(rendered, CHECK, "billing")


def test_the_policies_keep_others_out_of_inference() -> None:
    rendered = render("modelStore.url=gs://models", RESTRICTED)

    assert may_call(rendered, CHECK, "inference")
    assert not may_call(rendered, "mysql", "inference")


def test_it_never_runs_by_itself_and_is_never_retried() -> None:
    spec = render("modelStore.url=gs://models").get("CronJob", CHECK)["spec"]

    assert spec["suspend"] is True
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert spec["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_it_finds_every_pod_through_a_headless_service() -> None:
    rendered = render("modelStore.url=gs://models")

    service = rendered.get("Service", "inference-pods")["spec"]
    variables = {each["name"]: each.get("value") for each in container_of(rendered)["env"]}

    assert service["clusterIP"] == "None"
    assert selects({"matchLabels": service["selector"]}, labels_of("inference"))
    assert variables["TOLLGATE_INFERENCE_PODS"] == ("http://t-tollgate-inference-pods.n.svc:8002")
    assert variables["TRAINER_MODEL_STORE"] == "gs://models"


def test_helm_test_checks_every_live_model_as_the_job_would() -> None:
    rendered = render("modelStore.url=gs://models")

    test = rendered.get("Pod", "test-models")
    [container] = test["spec"]["containers"]

    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert test["metadata"]["labels"].items() >= labels_of(CHECK).items()
    assert container["args"][:3] == ["models", "check", "--tolerant"]
    assert container["env"] == container_of(rendered)["env"]


def test_it_predicts_as_the_client_of_the_given_secret() -> None:
    rendered = render("modelStore.url=gs://models", "releaseCheck.clientSecret=checker")

    secrets = {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for each in container_of(rendered)["env"]
        if "valueFrom" in each
    }

    assert secrets == {
        "TOLLGATE_CLIENT_ID": {"name": "checker", "key": "client-id"},
        "TOLLGATE_CLIENT_SECRET": {"name": "checker", "key": "client-secret"},
    }


@pytest.mark.parametrize(
    "settings", [(), ("modelStore.url=gs://models", "releaseCheck.enabled=false")]
)
def test_it_does_not_exist_without_models_or_when_turned_off(settings: tuple[str, ...]) -> None:
    names = [cronjob["metadata"]["name"] for cronjob in render(*settings).of("CronJob")]

    assert "t-tollgate-release-check" not in names
