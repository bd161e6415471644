"""An operator's work on a running release, as in docs/operations.md; `make test-cluster`."""

import base64
import time
from collections.abc import Iterator

import pytest

from harness.waiting import eventually
from tests.e2e.cluster.control_plane import Cluster
from tests.e2e.cluster.release import WORKLOADS, Release, new_release
from tests.integration.deploy.chart import MEASURED, SERVICES

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    """A release with the defaults; a test leaves it as it was."""
    with new_release(cluster, "operations", "defaults") as release:
        yield release


def scale(release: Release, service: str, replicas: int) -> None:
    """Scale as `kubectl scale` does."""
    change = {"spec": {"replicas": replicas}}
    name = f"t-tollgate-{service}"
    release.api.patch("apps/v1", "Deployment", name, change, namespace=release.namespace)


def change(release: Release, secret: str, data: dict[str, str | None]) -> None:
    """Put base64 values into a Secret; None removes one."""
    name = f"t-tollgate-{secret}"
    release.api.patch("v1", "Secret", name, {"data": data}, namespace=release.namespace)


def checksums(release: Release) -> dict[str, dict[str, str]]:
    """Return the part of each workload that restarts its pods when it changes."""
    return {
        each["metadata"]["name"].removeprefix("t-tollgate-"): each["spec"]["template"]["metadata"][
            "annotations"
        ]
        for kind in WORKLOADS
        for each in release.find("apps/v1", kind)
    }


def test_the_namespace_admits_no_pod_with_more_rights(release: Release) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}}
    containers = [{"name": "root", "image": "tollgate-auth"}]

    with pytest.raises(AssertionError, match='violates PodSecurity \\\\"restricted:latest'):
        release.api.create(pod | {"spec": {"containers": containers}}, namespace=release.namespace)


def test_a_misspelt_field_is_reported(release: Release) -> None:
    [budget, *_] = [m for m in release.manifests() if m["kind"] == "PodDisruptionBudget"]
    misspelt = budget | {"spec": budget["spec"] | {"maxUnavailabel": 1}}

    assert release.api.complaints(budget, namespace=release.namespace) == []
    [complaint] = release.api.complaints(misspelt, namespace=release.namespace)
    assert "maxUnavailabel" in complaint


def test_services_stopped_for_a_restore_stay_stopped_until_started_again(
    release: Release,
) -> None:
    for service in MEASURED:
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
    time.sleep(3)  # the autoscalers check twice a second
    assert len(release.pods()) == 1

    for service in MEASURED:
        scale(release, service, 1)

    for service in SERVICES:
        release.await_ready("Deployment", f"t-tollgate-{service}", 2)
    release.await_ready("Deployment", "t-tollgate-billing-verify", 1)


def test_an_upgrade_whose_pods_never_start_keeps_the_old_ones_and_is_rolled_back(
    release: Release,
) -> None:
    before = {pod["metadata"]["name"] for pod in release.pods()}

    with pytest.raises(AssertionError, match="rolled back due to atomic being set"):
        release.upgrade(
            "defaults", "auth.nodeSelector.no=such", flags=("--atomic", "--timeout=15s")
        )

    assert {pod["metadata"]["name"] for pod in release.pods()} == before
    release.revision()


def test_the_database_volume_grows_without_a_restart(cluster: Cluster) -> None:
    with new_release(cluster, "growing", "defaults") as release:
        before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in release.pods()}
        claim, where = "data-t-tollgate-mysql-0", {"namespace": release.namespace}
        resize = {"spec": {"resources": {"requests": {"storage": "40Gi"}}}}

        release.api.patch("v1", "PersistentVolumeClaim", claim, resize, **where)
        release.api.delete("apps/v1", "StatefulSet", "t-tollgate-mysql", **where, orphan=True)
        eventually(
            lambda: not release.api.exists("apps/v1", "StatefulSet", "t-tollgate-mysql", **where)
        )
        release.upgrade("defaults", "mysql.volume.size=40Gi")

        assert {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in release.pods()} == before


def test_a_signing_key_that_was_replaced_does_not_come_back(release: Release) -> None:
    key = release.secrets()["t-tollgate-auth-keys"]["0001.pem"]
    change(release, "auth-keys", {"0001.pem": None, "0002.pem": key})

    release.upgrade("defaults")

    assert set(release.secrets()["t-tollgate-auth-keys"]) == {"0002.pem"}


def test_a_password_that_mysql_would_refuse_is_refused_before_anything_changes(
    release: Release,
) -> None:
    good = release.secrets()["t-tollgate-mysql"]["auth-password"]
    change(release, "mysql", {"auth-password": base64.b64encode(b"it's").decode()})

    with pytest.raises(AssertionError, match="auth-password must be letters and digits"):
        release.upgrade("defaults")

    change(release, "mysql", {"auth-password": good})


def test_a_changed_password_takes_effect_and_survives_a_rollback(release: Release) -> None:
    before = release.revision()
    changed = base64.b64encode(b"AnotherPassword").decode()
    was = checksums(release)
    change(release, "mysql", {"auth-password": changed})

    release.upgrade("defaults")
    now = checksums(release)
    release.rollback(before)

    assert {name for name in now if now[name] != was[name]} == {
        "mysql",
        "auth",
        "billing",
        "billing-verify",
    }
    assert release.secrets()["t-tollgate-mysql"]["auth-password"] == changed
