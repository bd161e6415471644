"""The chart's whole life on a real control plane, scenario by scenario; `make test-cluster`."""

from collections.abc import Iterator

import pytest

from harness.waiting import eventually
from tests.e2e.cluster.control_plane import Cluster
from tests.e2e.cluster.release import WORKLOADS, Release, new_release
from tests.integration.deploy.chart import SCENARIOS, Manifest

pytestmark = pytest.mark.cluster

KEPT = {"PersistentVolumeClaim", "Secret"}


@pytest.fixture(scope="module", params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> str:
    """Each scenario, one after the other."""
    return str(request.param)


@pytest.fixture(scope="module")
def release(cluster: Cluster, scenario: str) -> Iterator[Release]:
    """A release of the scenario; a test leaves it as it was."""
    with new_release(cluster, f"scenario-{scenario}", scenario) as release:
        yield release


def images(release: Release) -> set[str]:
    return {pod["spec"]["containers"][0]["image"].split("/")[-1] for pod in release.pods()}


def names(objects: list[Manifest]) -> set[str]:
    return {each["metadata"]["name"] for each in objects}


class TestScenario:
    def test_the_server_accepts_every_object_unchanged(self, release: Release) -> None:
        complaints = {
            (manifest["kind"], manifest["metadata"]["name"]): complaints
            for manifest in release.manifests()
            if (complaints := release.api.complaints(manifest, namespace=release.namespace))
        }

        assert complaints == {}

    def test_every_workload_has_its_pods(self, release: Release, scenario: str) -> None:
        fewest = 1 if scenario == "everything-off" else 2

        for kind in WORKLOADS:
            for name in names(release.find("apps/v1", kind)):
                is_single = name.endswith(("-mysql", "-billing-verify"))
                release.await_ready(kind, name, 1 if is_single else fewest)
        events = release.api.find("v1", "Event", namespace=release.namespace)
        assert [event["message"] for event in events if event["reason"] == "FailedCreate"] == []

    def test_every_service_leads_to_ready_pods(self, release: Release) -> None:
        for name in names(release.find("v1", "Service")):
            release.await_addresses(name)

    def test_one_pod_of_each_kind_may_leave_a_node_at_a_time(
        self, release: Release, scenario: str
    ) -> None:
        for name in names(release.find("policy/v1", "PodDisruptionBudget")):
            together = scenario == "volume-journal" and name.endswith("-inference")  # on one node
            release.await_disruptions_allowed(name, 2 if together else 1)

    def test_jobs_created_by_hand_from_its_templates_are_admitted_and_run(
        self, release: Release
    ) -> None:
        for template in release.find("batch/v1", "CronJob"):
            release.run_now(template)

    def test_an_upgrade_that_changes_nothing_restarts_no_pod(
        self, release: Release, scenario: str
    ) -> None:
        before, secrets = names(release.pods()), release.secrets()

        release.upgrade(scenario)

        assert names(release.pods()) == before
        assert release.secrets() == secrets

    def test_an_upgrade_rolls_out_and_a_rollback_undoes_it(
        self, release: Release, scenario: str
    ) -> None:
        before, secrets = images(release), release.secrets()
        good = release.revision()

        release.upgrade(scenario, "image.tag=next", "mysql.image=mysql:8.4.99")
        eventually(lambda: all(image.endswith((":next", ":8.4.99")) for image in images(release)))
        release.rollback(good)

        eventually(lambda: images(release) == before)
        assert release.revision() == good + 2
        assert release.secrets() == secrets

    def test_the_next_release_reuses_what_outlived_the_last(
        self, release: Release, scenario: str
    ) -> None:
        secrets = release.secrets()

        release.uninstall()
        eventually(lambda: {kind for kind, _ in release.remaining_objects()} <= KEPT)
        remaining = release.remaining_objects()
        release.install(scenario)

        assert remaining <= release.remaining_objects()
        assert {("Secret", name) for name in secrets if "credentials" in name} <= remaining
        assert release.secrets() == secrets


def test_an_upgrade_can_turn_a_scenario_into_any_other(cluster: Cluster) -> None:
    with new_release(cluster, "changing", "defaults") as release:
        secrets = release.secrets()

        for scenario in [*SCENARIOS, "defaults"]:
            release.upgrade(scenario)

        assert release.secrets() == secrets
        release.rollback(1)
        assert release.secrets() == secrets
