"""What an operator does to a running release, as docs/operations.md says; `make test-cluster`."""

import base64
import time
from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import Cluster
from tests.cluster.release import WORKLOADS, Release, new_release
from tests.deploy.chart import SERVICES
from tests.e2e.platform import eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    """A release without a value, which a test leaves as it was."""
    with new_release(cluster, "operations", "defaults") as release:
        yield release


def scale(release: Release, service: str, replicas: int) -> None:
    """`kubectl scale`."""
    change = {"spec": {"replicas": replicas}}
    name = f"t-tollgate-{service}"
    release.api.patch("apps/v1", "Deployment", name, change, namespace=release.namespace)


def checksums(release: Release) -> dict[str, dict[str, str]]:
    """What rolls the pods of each workload, when it changes."""
    return {
        each["metadata"]["name"].removeprefix("t-tollgate-"): each["spec"]["template"]["metadata"][
            "annotations"
        ]
        for kind in WORKLOADS
        for each in release.find("apps/v1", kind)
    }


def test_services_stopped_for_a_restore_stay_so_until_they_are_started_again(
    release: Release,
) -> None:
    for service in SERVICES:
        scale(release, service, 0)
    eventually(
        lambda: [pod["metadata"]["name"] for pod in release.pods()] == ["t-tollgate-mysql-0"]
    )
    [restore] = [
        each
        for each in release.find("batch/v1", "CronJob")
        if "restore" in each["metadata"]["name"]
    ]
    release.run_now(restore)
    release.upgrade("defaults")
    time.sleep(3)  # the autoscalers look twice a second
    assert len(release.pods()) == 1

    for service in SERVICES:
        scale(release, service, 1)

    for service in SERVICES:
        release.await_ready("Deployment", f"t-tollgate-{service}", 2)


def test_an_upgrade_whose_pods_never_start_leaves_the_old_ones_and_is_undone(
    release: Release,
) -> None:
    before = {pod["metadata"]["name"] for pod in release.pods()}

    with pytest.raises(AssertionError, match="rolled back due to atomic being set"):
        release.upgrade(
            "defaults", "auth.nodeSelector.no=such", flags=("--atomic", "--timeout=15s")
        )

    assert {pod["metadata"]["name"] for pod in release.pods()} == before
    release.revision()


def test_a_password_that_was_changed_is_taken_up_and_outlives_a_rollback(release: Release) -> None:
    before = release.revision()
    changed = base64.b64encode(b"AnotherPassword").decode()
    change = {"data": {"auth-password": changed}}
    release.api.patch("v1", "Secret", "t-tollgate-mysql", change, namespace=release.namespace)
    was = checksums(release)

    release.upgrade("defaults")
    now = checksums(release)
    release.rollback(before)

    assert {name for name in now if now[name] != was[name]} == {"mysql", "auth", "billing"}
    assert release.secrets()["t-tollgate-mysql"]["auth-password"] == changed
