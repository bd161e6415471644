"""The release check's Job on a control plane: what it withdraws, and what it does not."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from harness.stores import FIRST, SECOND
from harness.waiting import eventually
from tests.e2e.cluster.control_plane import RUN_BY_TESTS, TOOLS, Cluster
from tests.e2e.cluster.kubelet import Kubelet, running_kubelet
from tests.e2e.cluster.release import Release, new_release
from tests.integration.cli.two_releases import a_process_that_serves, live, signed_store_of
from tests.integration.deploy.chart import Manifest
from tests.integration.deploy.policies import may_call
from tests.integration.trainer.conftest import Workshop, new_workshop

pytestmark = pytest.mark.cluster

ONLY_WEB = (
    "networkPolicy.allowFrom[0].namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name=web"
)
UNCHANGED, ROLLED_BACK = (2, SECOND), (3, FIRST)
PODS = "t-tollgate-inference-pods"

Check = Callable[..., Result]


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    """A release whose namespace denies all traffic except what its policies list."""
    with new_release(cluster, RUN_BY_TESTS, "gcs", ONLY_WEB) as release:
        yield release


@pytest.fixture(scope="module")
def module_kubelet(cluster: Cluster, release: Release) -> Iterator[Kubelet]:
    with running_kubelet(cluster, release.namespace) as kubelet:
        yield kubelet


@pytest.fixture
def two(tmp_path: Path, release: Release) -> Workshop:
    """Release two versions while the pods run; the second is live as release 2."""
    workshop = new_workshop(tmp_path)
    for version in (FIRST, SECOND):
        signed_store_of(workshop).publish(version)
        workshop.release_manager.release("wine", version=version)
    return workshop


@pytest.fixture
def kubelet(module_kubelet: Kubelet, two: Workshop) -> Kubelet:
    """Run the check's pods with the store of the test instead of the bucket."""
    module_kubelet.served, module_kubelet.fate = {}, "run"
    module_kubelet.environment = {
        "TOLLGATE_HOME": str(two.home),
        "TRAINER_MODEL_STORE": two.settings.model_store_url,
        "TRAINER_TRUSTED_KEYS": str(two.home / "keys" / "trusted"),
    }
    return module_kubelet


@pytest.fixture
def check(
    cluster: Cluster, release: Release, two: Workshop, monkeypatch: pytest.MonkeyPatch
) -> Check:
    """Return the command of the workflow, run from outside the cluster."""
    monkeypatch.setenv("TOLLGATE_HOME", str(two.home))
    monkeypatch.setenv("HOME", str(cluster.folder))
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setenv("PATH", f"{TOOLS}:{os.environ['PATH']}")
    monkeypatch.setattr("cli.serving.cluster.POLL_S", 0.2)

    def run(command: str = "wait") -> Result:
        where = ("--helm-release", "t", "--namespace", release.namespace)
        what = ("models", command, "wine", "--release", "2", "--within", "0", "--withdraw")
        return CliRunner().invoke(app, [*what, *where])

    return run


def inference_pods(release: Release) -> list[Manifest]:
    component = "app.kubernetes.io/component"
    pods = [pod for pod in release.pods() if pod["metadata"]["labels"][component] == "inference"]
    assert len(pods) >= 2
    return pods


@pytest.fixture
def serve(release: Release, kubelet: Kubelet) -> Iterator[Callable[[int, int], None]]:
    """Have the first inference pod serve one release, and all others another."""
    with ExitStack() as processes:

        def start(first: int, others: int) -> None:
            numbers = [first] + [others] * (len(inference_pods(release)) - 1)
            for pod, number in zip(inference_pods(release), numbers, strict=True):
                url = processes.enter_context(a_process_that_serves(number))
                kubelet.served[pod["metadata"]["name"]] = url

        yield start


@pytest.fixture
def crashing(release: Release, kubelet: Kubelet) -> Iterator[list[str]]:
    """Have every inference pod crash again and again, beginning a minute after the release."""
    pods = inference_pods(release)
    now = (datetime.now(UTC) + timedelta(minutes=1)).isoformat().replace("+00:00", "Z")
    for pod in pods:
        [status] = pod["status"]["containerStatuses"]
        ended = {"exitCode": 139, "reason": "Error", "finishedAt": now}
        status = status | {"ready": False, "restartCount": 3, "lastState": {"terminated": ended}}
        status |= {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
        unready = {"type": "Ready", "status": "False", "lastTransitionTime": now}
        others = [each for each in pod["status"]["conditions"] if each["type"] != "Ready"]
        change = {"containerStatuses": [status], "conditions": [*others, unready]}
        kubelet.set_status(pod, change)
    eventually(lambda: kubelet.endpoints(PODS) == [])
    yield [pod["metadata"]["name"] for pod in pods]
    for pod in pods:
        parts = ("containerStatuses", "conditions")
        kubelet.set_status(pod, {part: pod["status"][part] for part in parts})
    eventually(lambda: len(kubelet.endpoints(PODS)) == len(pods))


def test_the_policies_let_its_pod_reach_inference(release: Release) -> None:
    policies = release.find("networking.k8s.io/v1", "NetworkPolicy")
    labels = {
        each["metadata"]["name"].removeprefix("t-tollgate-"): each["spec"]["podSelector"][
            "matchLabels"
        ]
        for each in policies
    }
    template = release.get("batch/v1", "CronJob", RUN_BY_TESTS)["spec"]["jobTemplate"]["spec"]
    caller = template["template"]["metadata"]["labels"]
    [called, *_] = [pod["metadata"]["labels"] for pod in inference_pods(release)]

    assert may_call(policies, caller, called)
    assert not may_call(policies, labels["mysql"], called)
    assert not may_call(policies, caller, labels["billing"])


def test_a_release_that_every_pod_serves_passes(
    check: Check, serve: Callable[[int, int], None], two: Workshop, release: Release
) -> None:
    serve(2, 2)

    ended = check()

    count = len(inference_pods(release))
    assert (ended.exit_code, live(two)) == (0, UNCHANGED), ended.stderr
    assert ended.stdout == f"wine: release 2 or later is served by {count} processes\n"
    assert_no_job_is_left(release)


def test_a_pod_that_serves_an_older_release_withdraws_it(
    check: Check, serve: Callable[[int, int], None], two: Workshop, release: Release
) -> None:
    serve(1, 2)

    ended = check()

    assert (ended.exit_code, live(two)) == (1, ROLLED_BACK)
    assert "serves release 1" in ended.stderr
    assert_no_job_is_left(release)


def test_pods_that_do_not_answer_withdraw_nothing(
    check: Check, kubelet: Kubelet, two: Workshop
) -> None:
    ended = check()

    assert_nothing_was_withdrawn(ended, two)
    assert "does not report which release it serves" in ended.stderr


@pytest.mark.parametrize(
    ("fate", "reason"), [("die", "printed no outcome"), ("hang", "did not finish within 1 s")]
)
def test_a_job_without_an_outcome_withdraws_nothing(
    check: Check,
    serve: Callable[[int, int], None],
    kubelet: Kubelet,
    two: Workshop,
    release: Release,
    monkeypatch: pytest.MonkeyPatch,
    fate: str,
    reason: str,
) -> None:
    serve(1, 1)
    kubelet.fate = fate
    if fate == "hang":
        monkeypatch.setattr("cli.serving.cluster.START_S", 1.0)

    ended = check()

    assert_nothing_was_withdrawn(ended, two)
    assert reason in ended.stderr
    assert_no_job_is_left(release)


def test_an_api_server_that_cannot_be_reached_withdraws_nothing(
    check: Check,
    serve: Callable[[int, int], None],
    two: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(1, 1)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    ended = check()

    assert_nothing_was_withdrawn(ended, two)
    assert "`kubectl get` failed" in ended.stderr


def test_predictions_that_cannot_be_made_withdraw_nothing(
    check: Check, kubelet: Kubelet, two: Workshop
) -> None:
    ended = check("check")

    assert (ended.exit_code, live(two)) == (1, UNCHANGED)
    assert "could not check release 2 of wine; nothing was withdrawn" in ended.stderr


def test_pods_that_all_crash_since_the_release_withdraw_it(
    check: Check, crashing: list[str], two: Workshop
) -> None:
    ended = check()

    assert (ended.exit_code, live(two)) == (1, ROLLED_BACK), ended.stderr
    for name in crashing:
        assert f"{name} serves no release" in ended.stderr


def assert_nothing_was_withdrawn(ended: Result, two: Workshop) -> None:
    assert (ended.exit_code, live(two)) == (1, UNCHANGED)
    assert "nothing was withdrawn" in ended.stderr.splitlines()[-1]


def assert_no_job_is_left(release: Release) -> None:
    label = "app.kubernetes.io/component"

    def are_gone() -> bool:
        jobs = release.find("batch/v1", "Job")
        return RUN_BY_TESTS not in {job["metadata"]["labels"][label] for job in jobs}

    eventually(are_gone)
