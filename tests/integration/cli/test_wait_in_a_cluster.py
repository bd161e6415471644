"""`tollgate models wait` in a cluster: the Job that asks the pods, and pods that crash."""

import json
import os
import re
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from cli.serving.cluster import TRIES
from cli.serving.pods import Pod, crashing_since
from harness.stores import FIRST, SECOND
from tests.integration.cli.two_releases import Run, a_process_that_serves, live
from tests.integration.trainer.conftest import Workshop

KUBECTL = """#!{python} -IS
import json, os, pathlib, subprocess, sys
folder, words = pathlib.Path({folder!r}), sys.argv[2:]
if "--raw" in words or "proxy" in " ".join(words):
    sys.exit("the API server's proxy is blocked")
verb = " ".join(words[:2])
failures = folder / f"failures of {{words[0]}}"
if failures.exists() and (left := int(failures.read_text())):
    failures.write_text(str(left - 1))
    sys.exit("the connection was lost")
if verb == "get pods":
    print(json.dumps({{"items": json.loads((folder / "pods").read_text())}}))
elif verb == "get cronjobs":
    container = {{"name": "release-check", "command": ["tollgate"], "args": ["models", "list"]}}
    template = {{"spec": {{"template": {{"spec": {{"containers": [container]}}}}}}}}
    item = {{"metadata": {{"name": "shop-release-check"}}, "spec": {{"jobTemplate": template}}}}
    print(json.dumps({{"items": [item]}}))
elif words[0] == "apply":
    job = json.load(sys.stdin)
    [container] = job["spec"]["template"]["spec"]["containers"]
    args = [os.path.expandvars(arg.replace("$(", "${{").replace(")", "}}"))
            for arg in container["args"]]
    done = subprocess.run([sys.executable, "-m", "cli.main", *args], capture_output=True, text=True)
    (folder / "log").write_text(done.stdout + done.stderr)
    (folder / "status").write_text("succeeded" if done.returncode == 0 else "failed")
    (folder / "name").write_text(job["metadata"]["name"])
elif verb == "get job":
    print(json.dumps({{"status": {{(folder / "status").read_text(): 1}}}}))
elif words[0] == "logs":
    print((folder / "log").read_text() if not (folder / "deaf").exists() else "")
elif words[0] == "delete":
    (folder / "deleted").write_text(" ".join(words))
"""
"""A fake cluster that runs the Job locally, and blocks the API server's proxy to pods."""


def a_crashing_pod(name: str, *, released: datetime) -> Pod:
    """Return a pod that was ready before a release and has crashed repeatedly since."""
    before, after = (released + timedelta(minutes=minutes) for minutes in (-60, 2))
    return {
        "metadata": {"name": name, "creationTimestamp": before.isoformat()},
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": after.isoformat()}
            ],
            "containerStatuses": [
                {
                    "restartCount": 4,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 139, "finishedAt": after.isoformat()}},
                }
            ],
        },
    }


@pytest.mark.costly
class TestInTheCluster:
    @pytest.fixture
    def cluster(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "cluster"
        folder.mkdir()
        kubectl = folder / "kubectl"
        kubectl.write_text(KUBECTL.format(python=sys.executable, folder=str(folder)))
        kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
        (folder / "pods").write_text("[]")
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return folder

    def wait(self, run: Run) -> Result:
        words = ("--helm-release", "shop", "--namespace", "sales", "--within", "0", "--withdraw")
        return run("wait", "wine", "--release", "2", *words)

    def test_the_job_sees_that_every_pod_serves_the_release(
        self, run: Run, cluster: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with a_process_that_serves(2) as url:
            monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", url)
            ended = self.wait(run)

        assert (ended.exit_code, ended.stdout) == (
            0,
            "wine: release 2 or later is served by 1 process\n",
        )
        name = (cluster / "name").read_text()
        assert re.fullmatch("shop-release-check-[0-9a-f]{8}", name)
        assert (cluster / "deleted").read_text() == (
            f"delete job {name} -n sales --wait=false --ignore-not-found"
        )

    @pytest.mark.parametrize("command", ["get", "apply", "logs"])
    def test_a_command_that_fails_for_a_moment_is_repeated(
        self, run: Run, cluster: Path, monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        monkeypatch.setattr("cli.serving.cluster.POLL_S", 0.0)
        (cluster / f"failures of {command}").write_text(str(TRIES - 1))

        with a_process_that_serves(2) as url:
            monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", url)
            ended = self.wait(run)

        assert ended.exit_code == 0
        assert ended.stderr.count(f"`kubectl {command}` failed; retrying") == TRIES - 1

    @pytest.mark.parametrize("command", ["get", "apply", "logs"])
    def test_a_command_that_keeps_failing_ends_without_a_verdict(
        self,
        run: Run,
        two: Workshop,
        cluster: Path,
        monkeypatch: pytest.MonkeyPatch,
        command: str,
    ) -> None:
        monkeypatch.setattr("cli.serving.cluster.POLL_S", 0.0)
        monkeypatch.setattr("cli.serving.cluster.START_S", 1.0)
        (cluster / f"failures of {command}").write_text("1000")

        with a_process_that_serves(1) as url:
            monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", url)
            ended = self.wait(run)

        assert (ended.exit_code, live(two)) == (1, (2, SECOND))
        assert "nothing was withdrawn" in ended.stderr.splitlines()[-1]

    def test_pods_that_all_crash_since_the_release_withdraw_it(
        self, run: Run, two: Workshop, cluster: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = two.store.find_release("wine", 2)
        assert record is not None
        pods = [a_crashing_pod(name, released=record.time) for name in ("one", "two")]
        (cluster / "pods").write_text(json.dumps(pods))
        monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", "http://nobody.invalid:8002")

        ended = self.wait(run)

        assert (ended.exit_code, live(two)) == (1, (3, FIRST))
        assert "error: one serves no release" in ended.stderr
        assert ended.stderr.endswith(": every pod has been crashing since the release\n")
        withdrawal = two.store.find_release("wine", 3)
        assert withdrawal is not None
        assert withdrawal.reason == "every pod has been crashing since the release"

    def test_pods_that_crash_do_not_outweigh_one_that_serves_the_release(
        self, run: Run, two: Workshop, cluster: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = two.store.find_release("wine", 2)
        assert record is not None
        (cluster / "pods").write_text(json.dumps([a_crashing_pod("one", released=record.time)]))

        with a_process_that_serves(2) as url:
            monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", url)
            ended = self.wait(run)

        assert (ended.exit_code, live(two)) == (0, (2, SECOND))

    def test_the_job_sees_a_pod_on_an_older_release(
        self, run: Run, two: Workshop, cluster: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with a_process_that_serves(1) as url:
            monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", url)
            ended = self.wait(run)

        assert (ended.exit_code, live(two)) == (1, (3, FIRST))
        assert f"error: {url} serves release 1" in ended.stderr

    @pytest.mark.parametrize("fault", ["no pods", "no log"])
    def test_a_job_without_an_outcome_withdraws_nothing(
        self,
        run: Run,
        two: Workshop,
        cluster: Path,
        monkeypatch: pytest.MonkeyPatch,
        fault: str,
    ) -> None:
        monkeypatch.setenv("TOLLGATE_INFERENCE_PODS", "http://nobody.invalid:8002")
        if fault == "no log":
            (cluster / "deaf").touch()

        ended = self.wait(run)

        assert (ended.exit_code, live(two)) == (1, (2, SECOND))
        assert "nothing was withdrawn" in ended.stderr


RELEASED = datetime(2026, 11, 25, 12, tzinfo=UTC)


class TestCrashes:
    def test_pods_that_all_crash_since_a_release_are_evidence(self) -> None:
        pods = [a_crashing_pod(name, released=RELEASED) for name in ("one", "two")]

        assert crashing_since(RELEASED, pods) == ["one", "two"]

    def test_a_pod_added_since_the_release_counts_if_it_crashes_too(self) -> None:
        old, new = (a_crashing_pod(name, released=RELEASED) for name in ("old", "new"))
        new["metadata"]["creationTimestamp"] = "2026-11-25T12:01:00Z"
        new["status"]["conditions"][0]["lastTransitionTime"] = "2026-11-25T12:01:00Z"

        assert crashing_since(RELEASED, [old, new]) == ["old", "new"]
        assert crashing_since(RELEASED, [new]) == []

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("conditions", 0, "status"), "True"),
            (("conditions", 0, "lastTransitionTime"), "2026-11-25T11:30:00Z"),
            (("conditions",), []),
            (("containerStatuses",), []),
            (("containerStatuses", 0, "restartCount"), 1),
            (("containerStatuses", 0, "lastState"), {}),
            (("containerStatuses", 0, "lastState", "terminated", "exitCode"), 0),
            (("containerStatuses", 0, "lastState", "terminated", "finishedAt"), None),
            (
                ("containerStatuses", 0, "lastState", "terminated", "finishedAt"),
                "2026-11-25T11:30:00Z",
            ),
        ],
        ids=[
            "ready",
            "unready before",
            "not reported",
            "not started",
            "restarted once",
            "never ended",
            "ended well",
            "no time",
            "crashed before",
        ],
    )
    def test_one_pod_without_such_a_crash_is_no_evidence(
        self, place: tuple[str | int, ...], value: Any
    ) -> None:
        one, other = (a_crashing_pod(name, released=RELEASED) for name in ("one", "other"))
        *path, last = place
        within: Any = other["status"]
        for step in path:
            within = within[step]
        within[last] = value

        assert crashing_since(RELEASED, [one, other]) == []

    def test_no_pods_are_no_evidence(self) -> None:
        assert crashing_since(RELEASED, []) == []
