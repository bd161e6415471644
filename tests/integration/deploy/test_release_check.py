"""The Job that checks from inside the cluster what pods serve, with every values file."""

import pytest

from tests.integration.deploy.chart import SCENARIOS, Rendered, render
from tests.integration.deploy.policies import may_call

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


def can_call(rendered: Rendered, caller: str, called: str) -> bool:
    """Return whether the network policies let one component's pods call another's."""
    return may_call(rendered.of("NetworkPolicy"), labels_of(caller), labels_of(called))


@pytest.mark.parametrize("scenario", WITH_MODELS)
@pytest.mark.parametrize("settings", [(), ("domain=",), (RESTRICTED,)])
def test_the_policies_let_it_reach_inference_and_auth(
    scenario: str, settings: tuple[str, ...]
) -> None:
    rendered = render(*settings, scenario=scenario)

    assert can_call(rendered, CHECK, "inference")
    assert can_call(rendered, CHECK, "auth")
    assert not can_call(rendered, CHECK, "billing")


def test_the_policies_keep_others_out_of_inference() -> None:
    rendered = render("modelStore.url=gs://models", RESTRICTED)

    assert can_call(rendered, CHECK, "inference")
    assert not can_call(rendered, "mysql", "inference")


def test_helm_test_sees_the_same_as_the_job() -> None:
    rendered = render("modelStore.url=gs://models")

    job = rendered.get("CronJob", CHECK)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    test = rendered.get("Pod", "test-models")["spec"]

    assert test["containers"][0]["env"] == job["containers"][0]["env"]
